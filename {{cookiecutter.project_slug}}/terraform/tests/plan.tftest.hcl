# Plans staging with a mock provider, without calling AWS. The module has its own tests.

mock_provider "aws" {
  source          = "../chassis/terraform/service/mocks"
  override_during = plan
}

variables {
  environment = "staging"
  image_tag   = "1"
}

run "staging" {
  command = plan

  assert {
    condition     = output.environment.ENVIRONMENT == "staging" && output.image_tag == "1"
    error_message = "The outputs show another environment or image tag than the variables."
  }

  assert {
    condition     = toset(keys(output.queues)) == toset([for queue in local.contract.queues : queue.name])
    error_message = "A queue of the contract is missing."
  }
}
