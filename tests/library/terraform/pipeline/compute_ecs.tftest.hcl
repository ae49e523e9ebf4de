# The roles' permissions for workers on ECS; see pipeline.tftest.hcl.

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

run "a_deployment_verifies_its_workers_and_no_others" {
  command = plan

  assert {
    condition = length([
      for wanted in [
        "ecs:RunTask arn:aws:ecs:${local.contract.region}:123456789012:task-definition/${local.contract.service}-staging-high:1",
        "ecs:StopTask arn:aws:ecs:${local.contract.region}:123456789012:task/${local.contract.service}-staging/0123456789abcdef",
        "iam:PassRole arn:aws:iam::123456789012:role/${local.contract.service}-staging-${local.contract.region}-workers",
        "ecs:DescribeTasks arn:aws:ecs:${local.contract.region}:123456789012:task/${local.contract.service}-staging/0123456789abcdef",
        "ecs:DescribeServices arn:aws:ecs:${local.contract.region}:123456789012:service/${local.contract.service}-staging/high",
        "ecs:DescribeTaskDefinition *",
        ] : wanted if anytrue(flatten([
          for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
            for action in flatten([statement.Action]) : [
              for resource in flatten([statement.Resource]) :
              can(regex("^${replace(action, "*", ".*")} ${replace(resource, "*", ".*")}$", wanted))
            ]
          ]
      ]))
    ]) == 6
    error_message = "A deployment could not run or stop workers."
  }

  assert {
    condition = length([
      for wanted in [
        "ecs:RunTask arn:aws:ecs:${local.contract.region}:123456789012:task-definition/${local.contract.service}-production-high:1",
        "ecs:StopTask arn:aws:ecs:${local.contract.region}:123456789012:task/${local.contract.service}-production/0123456789abcdef",
        "iam:PassRole arn:aws:iam::123456789012:role/${local.contract.service}-production-${local.contract.region}-workers",
        "ecs:StopTask arn:aws:ecs:${local.contract.region}:123456789012:task/other-staging/0123456789abcdef",
        "ecs:ExecuteCommand arn:aws:ecs:${local.contract.region}:123456789012:task/${local.contract.service}-staging/0123456789abcdef",
        "ecs:UpdateTaskProtection arn:aws:ecs:${local.contract.region}:123456789012:task/${local.contract.service}-staging/0123456789abcdef",
        ] : wanted if anytrue(flatten([
          for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
            for action in flatten([statement.Action]) : [
              for resource in flatten([statement.Resource]) :
              can(regex("^${replace(action, "*", ".*")} ${replace(resource, "*", ".*")}$", wanted))
            ]
          ]
      ]))
    ]) == 0
    error_message = "A deployment could run or stop workers of another environment or service."
  }

  assert {
    condition = length([
      for wanted in [
        "ecs:RunTask arn:aws:ecs:${local.contract.region}:123456789012:task-definition/${local.contract.service}-staging-high:1",
        "ecs:StopTask arn:aws:ecs:${local.contract.region}:123456789012:task/${local.contract.service}-staging/0123456789abcdef",
        "iam:PassRole arn:aws:iam::123456789012:role/${local.contract.service}-staging-${local.contract.region}-workers",
        ] : wanted if anytrue(flatten([
          for statement in jsondecode(aws_iam_role_policy.this["plan"].policy).Statement : [
            for action in flatten([statement.Action]) : [
              for resource in flatten([statement.Resource]) :
              can(regex("^${replace(action, "*", ".*")} ${replace(resource, "*", ".*")}$", wanted))
            ]
          ]
      ]))
    ]) == 0
    error_message = "A plan could run or stop workers."
  }
}
