# The whole plan of staging, with a mock provider: nothing is contacted. The module has tests of its own.

mock_provider "aws" {
  source          = "../chassis/terraform/service/tests/mocks"
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
    error_message = "Workers of staging would run in another environment, or another image."
  }

  assert {
    condition     = toset(keys(output.queues)) == toset([for queue in local.contract.queues : queue.name])
    error_message = "A queue of the contract is missing."
  }
}
