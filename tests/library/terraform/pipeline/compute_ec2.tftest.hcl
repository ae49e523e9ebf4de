# The roles' permissions for workers on EC2; see pipeline.tftest.hcl.

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
        "autoscaling:SetDesiredCapacity arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-staging-high",
        "autoscaling:PutLifecycleHook arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-staging-high",
        "autoscaling:StartInstanceRefresh arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-staging-high",
        "autoscaling:DescribeAutoScalingGroups *",
        "autoscaling:DescribeInstanceRefreshes *",
        "autoscaling:DescribeScalingActivities *",
        ] : wanted if anytrue(flatten([
          for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
            for action in flatten([statement.Action]) : [
              for resource in flatten([statement.Resource]) :
              can(regex("^${replace(action, "*", ".*")} ${replace(resource, "*", ".*")}$", wanted))
            ]
          ]
      ]))
    ]) == 6
    error_message = "A deployment could not start or stop instances."
  }

  assert {
    condition = length([
      for wanted in [
        "autoscaling:SetDesiredCapacity arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-production-high",
        "autoscaling:PutLifecycleHook arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-production-high",
        "autoscaling:StartInstanceRefresh arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-production-high",
        "autoscaling:SetDesiredCapacity arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/other-staging-high",
        ] : wanted if anytrue(flatten([
          for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
            for action in flatten([statement.Action]) : [
              for resource in flatten([statement.Resource]) :
              can(regex("^${replace(action, "*", ".*")} ${replace(resource, "*", ".*")}$", wanted))
            ]
          ]
      ]))
    ]) == 0
    error_message = "A deployment could start or stop instances of another environment or service."
  }

  assert {
    condition = length([
      for wanted in [
        "autoscaling:SetDesiredCapacity arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-staging-high",
        "autoscaling:PutLifecycleHook arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-staging-high",
        "autoscaling:StartInstanceRefresh arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:0123:autoScalingGroupName/${local.contract.service}-staging-high",
        ] : wanted if anytrue(flatten([
          for statement in jsondecode(aws_iam_role_policy.this["plan"].policy).Statement : [
            for action in flatten([statement.Action]) : [
              for resource in flatten([statement.Resource]) :
              can(regex("^${replace(action, "*", ".*")} ${replace(resource, "*", ".*")}$", wanted))
            ]
          ]
      ]))
    ]) == 0
    error_message = "A plan could start or stop instances."
  }
}
