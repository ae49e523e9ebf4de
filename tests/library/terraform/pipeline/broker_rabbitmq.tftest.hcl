# The roles' permissions for the broker; see pipeline.tftest.hcl.

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

run "broker" {
  command = plan

  assert {
    condition = [
      for arn in [
        "mq:${local.contract.region}:123456789012:broker:${local.contract.service}-staging:b-1",
        "mq:${local.contract.region}:123456789012:broker:${local.contract.service}-production:b-1",
        "secretsmanager:${local.contract.region}:123456789012:secret:${local.contract.service}-staging-broker-abcdef",
        "secretsmanager:${local.contract.region}:123456789012:secret:${local.contract.service}-production-broker-abcdef",
        ] : anytrue(flatten([
          for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
            for resource in flatten([statement.Resource]) : can(regex("^${replace(resource, "*", ".*")}$", "arn:aws:${arn}"))
          ] if !contains(["Look", "LogIn", "MakeBroker", "OldVersions"], statement.Sid)
      ]))
    ] == [true, false, true, false]
    error_message = "A deployment could not change the environment's broker or secret, or could change another's."
  }

  assert {
    condition = !anytrue(flatten([
      for role in ["plan", "deploy"] : [
        for statement in jsondecode(aws_iam_role_policy.this[role].policy).Statement : [
          for action in flatten([statement.Action]) : can(regex("^${replace(action, "*", ".*")}$", "secretsmanager:GetSecretValue"))
        ]
      ]
    ]))
    error_message = "A role could read the broker's password."
  }
}
