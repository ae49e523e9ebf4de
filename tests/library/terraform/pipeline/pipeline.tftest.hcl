# Who can assume which role, and its permissions: policies as sent to AWS. Nothing is contacted.

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

run "only_jobs_of_the_repository_are_let_in" {
  command = plan

  assert {
    condition = {
      for role, trust in data.aws_iam_policy_document.trust : role => jsondecode(trust.json).Statement
      } == {
      for role, subject in { plan = "pull_request", deploy = "environment:staging" } : role => [{
        Effect    = "Allow"
        Action    = "sts:AssumeRoleWithWebIdentity"
        Principal = { Federated = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" }
        Condition = {
          StringEquals = {
            "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
            "token.actions.githubusercontent.com:sub" = "repo:acme@1/jobs@2:${subject}"
          }
        }
      }]
    }
    error_message = "Other jobs than those of pull requests and of the environment can assume the roles, or those cannot."
  }

  assert {
    condition = alltrue(flatten([
      for role in ["plan", "deploy"] : [
        for subject in [
          "repo:acme@1/jobs@2:pull_request",
          "repo:acme@1/jobs@2:environment:staging",
          "repo:acme@1/jobs@2:environment:production",
          "repo:acme@1/jobs@2:environment:staging2",
          "repo:acme@1/jobs@2:ref:refs/heads/main",
          "repo:acme@1/jobs@3:environment:staging",
          "repo:acme/jobs:pull_request",
          "repo:acme@1/jobs@22:pull_request",
        ] :
        (jsondecode(data.aws_iam_policy_document.trust[role].json).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == subject) == (
          { plan = "repo:acme@1/jobs@2:pull_request", deploy = "repo:acme@1/jobs@2:environment:staging" }[role] == subject
        )
      ]
    ]))
    error_message = "A role lets in whom it should not, or not whom it should."
  }

  assert {
    condition = alltrue([
      for name, role in aws_iam_role.this : role.path == "/pipeline/" && jsondecode(role.assume_role_policy) == jsondecode(data.aws_iam_policy_document.trust[name].json)
    ]) && join(" ", keys(aws_iam_role.this)) == "deploy plan"
    error_message = "A role has another trust policy than its own, or is among those it may change."
  }
}

run "jobs_of_a_github_enterprise_server_are_let_in" {
  command = plan

  variables {
    github_oidc_url   = "https://github.example.com/_services/token"
    github_repository = "acme/jobs"
  }

  assert {
    condition = jsondecode(data.aws_iam_policy_document.trust["deploy"].json).Statement[0].Condition == {
      StringEquals = {
        "github.example.com/_services/token:aud" = "sts.amazonaws.com"
        "github.example.com/_services/token:sub" = "repo:acme/jobs:environment:staging"
      }
    } && data.aws_iam_openid_connect_provider.github.url == "https://github.example.com/_services/token"
    error_message = "The trust policy names another issuer of tokens."
  }
}

run "an_oidc_url_without_https_is_refused" {
  command = plan

  variables {
    github_oidc_url = "github.example.com/_services/token"
  }

  expect_failures = [var.github_oidc_url]
}

run "a_plan_reads_how_things_are_set_up_and_no_data" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.this["plan"].policy).Statement : [
        for action in flatten([statement.Action]) :
        can(regex("^[a-z0-9-]+:(Describe|Get|List|View)", action)) && !contains(["s3:Get*", "s3:GetObject*"], action)
      ]
    ]))
    error_message = "A plan could change something."
  }

  assert {
    condition = {
      for statement in jsondecode(aws_iam_role_policy.this["plan"].policy).Statement : statement.Sid => [statement.Action, statement.Resource] if statement.Sid != "Look"
      } == {
      FindBuckets = ["s3:ListBucket", "arn:aws:s3:::${local.contract.service}-staging-*"]
      ReadState   = ["s3:GetObject", "arn:aws:s3:::${local.contract.service}-staging-state-${local.bucket_suffix}/${local.contract.service}.tfstate"]
    }
    error_message = "A plan could read more than the state."
  }

  assert {
    condition = !anytrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.this["plan"].policy).Statement : [
        for action in flatten([statement.Action]) : [
          for secret in ["dynamodb:GetItem", "ecr:GetAuthorizationToken", "logs:GetLogEvents", "s3:GetObject", "secretsmanager:GetSecretValue"] :
          can(regex("^${replace(action, "*", ".*")}$", secret)) && statement.Sid != "ReadState"
        ]
      ]
    ]))
    error_message = "A plan could read content, not only configuration."
  }
}

run "a_deployment_changes_what_has_the_environments_name" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
        for resource in flatten([statement.Resource]) :
        strcontains(resource, "${local.contract.service}-staging") || strcontains(resource, "/${local.contract.service}/staging/") ||
        contains(["Look", "LogIn", "FirstUse", "OwnKey", "ChangeNetwork", "MakeNetwork", "NetworkParts", "TagNew", "TagDefaultGroup", "OldVersions", "Scaling", "Machines", "NewMachines", "StartMachines", "NewestImage", "EndpointNames", "MakeBroker", "ConfigureBroker", "ConnectBroker"], statement.Sid) ||
        endswith(resource, ":parametergroup:default.*")
      ]
    ]))
    error_message = "A deployment could change what is not the environment's."
  }

  # Neither its own role nor the plan's, and neither the state's bucket nor what this root keeps there.
  assert {
    condition = !anytrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
        for resource in flatten([statement.Resource]) : [
          for foreign in [
            "arn:aws:iam::123456789012:role/pipeline/${local.contract.service}-staging-${local.region}-deploy",
            "arn:aws:iam::123456789012:role/${local.contract.service}-production-${local.region}-workers",
            "arn:aws:s3:::${local.contract.service}-staging-state-${local.bucket_suffix}/pipeline.tfstate",
            "arn:aws:s3:::${local.contract.service}-production-state-${local.bucket_suffix}/${local.contract.service}.tfstate",
            "arn:aws:ecr:${local.contract.region}:123456789012:repository/${local.contract.service}-production",
          ] :
          can(regex("^${replace(resource, "*", ".*")}$", foreign)) && !contains(["Look", "FindBuckets", "LogIn", "OldVersions", "MakeBroker"], statement.Sid)
        ]
      ]
    ]))
    error_message = "A deployment could give itself permissions, or change another environment."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement :
      contains(["Look", "FindBuckets"], statement.Sid) if anytrue([
        for resource in flatten([statement.Resource]) :
        can(regex("^${replace(resource, "*", ".*")}$", "arn:aws:s3:::${local.contract.service}-staging-state-${local.bucket_suffix}")) && strcontains(jsonencode(statement.Action), "s3:")
      ])
    ])
    error_message = "A deployment could change the bucket of its state."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : statement.Action == "iam:PassRole" && can(statement.Condition.StringEquals["iam:PassedToService"])
      if anytrue([for action in flatten([statement.Action]) : can(regex("^${replace(action, "*", ".*")}$", "iam:PassRole"))])
    ])
    error_message = "A deployment could lend a role to a service that is not the workers'."
  }

  # By its tags, as ids are unknown.
  assert {
    condition = alltrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.this["deploy"].policy).Statement : [
        for action in ["CreateRoute", "DeleteLaunchTemplate", "DeleteSecurityGroup", "DeleteSubnet", "DeleteTags", "DeleteVpc", "ModifyVpcAttribute", "ReleaseAddress"] :
        try(statement.Condition.StringEquals, {}) == { "aws:ResourceTag/Environment" = "staging", "aws:ResourceTag/Service" = local.contract.service }
        if anytrue([for pattern in flatten([statement.Action]) : can(regex("^${replace(pattern, "*", ".*")}$", "ec2:${action}"))])
      ]
    ]))
    error_message = "A deployment could change the network of another environment."
  }

  # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.this : length(replace(policy.policy, "/\\s/", "")) <= 10240])
    error_message = "A role's policy is longer than AWS takes."
  }
}

run "everybodys_repository_is_refused" {
  command = plan

  variables {
    environment       = "Production"
    github_repository = "acme/*"
  }

  expect_failures = [
    var.environment,
    var.github_repository,
  ]
}

run "no_repository_is_refused" {
  command = plan

  variables {
    github_repository = ""
  }

  expect_failures = [
    var.github_repository,
  ]
}

run "older_repositories_have_no_ids" {
  command = plan

  variables {
    github_repository = "Acme-Inc/jobs.v2_x"
  }

  assert {
    condition     = strcontains(data.aws_iam_policy_document.trust["plan"].json, "\"repo:Acme-Inc/jobs.v2_x:pull_request\"")
    error_message = "The repository is not the one that was named."
  }
}
