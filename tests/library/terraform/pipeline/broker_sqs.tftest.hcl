# The roles' permissions for queues; see pipeline.tftest.hcl.

provider "aws" {
  region                      = "eu-west-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_data {
  target = data.aws_iam_openid_connect_provider.github
  values = { arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" }
}

variables {
  environment       = "staging"
  github_repository = "acme@1/jobs@2"
}

run "queues" {
  command = plan

  assert {
    condition = !anytrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.this["plan"].policy).Statement : [
        for action in flatten([statement.Action]) : can(regex("^${replace(action, "*", ".*")}$", "sqs:ReceiveMessage"))
      ]
    ]))
    error_message = "A plan could read messages."
  }

  assert {
    condition = [
      for queue in ["staging-high", "staging-high-dlq.fifo", "production-high"] : anytrue(flatten([
        for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
          for resource in flatten([statement.Resource]) :
          can(regex("^${replace(resource, "*", ".*")}$", "arn:aws:sqs:${local.contract.region}:123456789012:${local.contract.service}-${queue}")) &&
          strcontains(jsonencode(statement.Action), "sqs:*")
        ]
      ]))
    ] == [true, true, false]
    error_message = "A deployment could not change the environment's queues, or could change another's."
  }
}
