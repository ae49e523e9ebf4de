# The plan with the real provider: policies as sent to AWS, and every number. Nothing is contacted.
# Expectations come from the contract, not from locals.tf.

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
  target = data.aws_availability_zones.available
  values = { names = ["zone-a", "zone-b", "zone-c"] }
}

variables {
  contract    = jsondecode(file("../../../contract.json"))
  environment = "staging"
  image_tag   = "1"
}

run "plan" {
  command = plan

  assert {
    condition = alltrue([
      for policy in ["producer", "worker", "operator"] : alltrue([
        for statement in jsondecode(data.aws_iam_policy_document.this[policy].json).Statement :
        statement.Effect == "Allow" &&
        alltrue([for action in flatten([statement.Action]) : !strcontains(action, "*")]) &&
        (contains(["ReadMetrics", "ReadQueries", "ListWorkers", "ReportQueues", "FindBroker", "ListQueues"], statement.Sid) || alltrue([
          for resource in flatten([statement.Resource]) :
          startswith(resource, "arn:aws:") && (statement.Sid == "ReadLogs" || !endswith(resource, ":*"))
        ]))
      ])
    ])
    error_message = "A policy allows more than named actions on named resources."
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.queue : alarm.treat_missing_data == "notBreaching"])
    error_message = "An idle queue raises an alarm."
  }
}

run "plan_with_the_owners_key_and_network_before_the_first_image" {
  command = plan

  variables {
    image_tag   = ""
    network     = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], endpoints_security_group_id = "sg-1" }
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/1"
  }

  assert {
    condition     = alltrue([for capacity in local.capacity : capacity.min == 0 && capacity.max == 0])
    error_message = "Workers would start from an image that was never pushed."
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_vpc_endpoint.interface) + length(aws_vpc_endpoint.gateway) == 0 && aws_security_group.workers.vpc_id == "vpc-1"
    error_message = "Network resources would be created in an existing VPC."
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.endpoints : rule.security_group_id] == ["sg-1"]
    error_message = "The endpoints of the existing VPC would not accept the workers."
  }

  assert {
    # A name that ends with a colon is refused by ECS.
    condition     = can(regex("^[0-9.a-z-]+/[a-z-]+:[A-Za-z0-9_][A-Za-z0-9_.-]*$", local.image))
    error_message = "A worker's image has no valid name before the first image is pushed."
  }

  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == var.kms_key_arn && aws_cloudwatch_log_group.workers.kms_key_id == var.kms_key_arn
    error_message = "Something is not encrypted with the owner's key."
  }

  assert {
    condition = alltrue([
      for policy in ["producer", "worker", "operator"] : anytrue([
        for statement in jsondecode(data.aws_iam_policy_document.this[policy].json).Statement : statement.Resource == var.kms_key_arn
      ])
    ])
    error_message = "Somebody could not read what is encrypted with the owner's key."
  }
}

run "two_regions_of_an_account_share_no_name" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), { region = "us-gov-west-1" })
  }

  assert {
    condition = alltrue([
      for name in concat([aws_cloudwatch_dashboard.this.dashboard_name, aws_iam_role.workers.name], values(aws_iam_policy.this)[*].name) :
      strcontains(name, "us-gov-west-1")
    ])
    error_message = "A name that is global to an account would be the same in another region."
  }

  assert {
    condition     = length(local.global_name) + length("-workers") <= 64 && local.bucket_suffix != substr(sha256("123456789012 ${jsondecode(file("../../../contract.json")).region}"), 0, 12)
    error_message = "A name is too long, or that of a bucket would be the same in another region."
  }
}

run "an_image_of_another_account_is_run" {
  command = plan

  variables {
    image_repository = "999999999999.dkr.ecr.us-east-1.amazonaws.com/team/jobs"
  }

  assert {
    condition     = length(aws_ecr_repository.service) == 0 && local.image == "${var.image_repository}:1"
    error_message = "Workers would run another image, or a repository would be created that nobody uses."
  }

  assert {
    condition = [
      for statement in jsondecode(data.aws_iam_policy_document.run_image.json).Statement : statement.Resource if statement.Sid == "PullImage"
    ] == ["arn:aws:ecr:us-east-1:999999999999:repository/team/jobs"]
    error_message = "What starts workers could not pull the image, or could pull others."
  }
}

run "a_contract_of_version_1_is_refused" {
  command = plan

  variables {
    contract = {
      service = "acme-jobs"
      broker  = "sqs-standard"
      compute = "ecs"
      region  = "eu-west-1"
      queues  = [{ name = "default", concurrency = 4, workers_min = 1, workers_max = 10 }]
    }
  }

  expect_failures = [var.contract]
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    environment        = "Production!"
    log_level          = "LOUD"
    log_retention_days = 8
    kms_key_arn        = "alias/mine"
    architecture       = "AMIGA"
    image_repository   = "example.com/jobs:latest"
    monthly_budget_usd = -1

    alarm_actions            = ["#on-call"]
    network                  = { vpc_id = "vpc-1" }
    permissions_boundary_arn = "limited"
  }

  expect_failures = [
    var.environment,
    var.log_level,
    var.log_retention_days,
    var.kms_key_arn,
    var.architecture,
    var.image_repository,
    var.monthly_budget_usd,
    var.alarm_actions,
    var.network,
    var.permissions_boundary_arn,
  ]
}

run "tasks_may_do_what_the_owner_allows_beside_the_services_work" {
  command = plan

  variables {
    task_policy_json = jsonencode({
      Version   = "2012-10-17"
      Statement = [{ Sid = "ReadInvoices", Effect = "Allow", Action = "s3:GetObject", Resource = "arn:aws:s3:::invoices/*" }]
    })
  }

  assert {
    condition = {
      for policy in ["producer", "worker", "operator"] : policy => [
        for statement in jsondecode(data.aws_iam_policy_document.this[policy].json).Statement : statement.Resource if statement.Sid == "ReadInvoices"
      ]
    } == { producer = [], worker = ["arn:aws:s3:::invoices/*"], operator = [] }
    error_message = "Tasks could not do what the owner allows, or others could."
  }

  assert {
    condition     = length(jsondecode(data.aws_iam_policy_document.this["worker"].json).Statement) > 1
    error_message = "The owner's policy replaced the service's."
  }
}

run "secrets_of_tasks_are_read_by_whatever_starts_workers" {
  command = plan

  variables {
    environment_variables = { PARTNER_URL = "https://partner.example" }
    secrets = {
      PARTNER_KEY = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:partner-abcdef"
      DATABASE    = "arn:aws:ssm:eu-west-1:123456789012:parameter/orders/database"
    }
    secrets_kms_key_arns = ["arn:aws:kms:eu-west-1:123456789012:key/1"]
    network              = { internet_access = "none" }
  }

  assert {
    condition = {
      for statement in jsondecode(data.aws_iam_policy_document.read_task_secrets["this"].json).Statement : statement.Sid => toset(flatten([statement.Resource]))
    } == { ReadSecrets = toset(values(var.secrets)), DecryptSecrets = toset(var.secrets_kms_key_arns) }
    error_message = "What starts workers cannot read the secrets, or can read others."
  }

  assert {
    condition     = alltrue([for service in ["secretsmanager", "ssm"] : contains(keys(aws_vpc_endpoint.interface), service)])
    error_message = "Nothing could read the secrets in the network without a way to the internet."
  }
}

run "variables_of_the_service_are_not_replaced" {
  command = plan

  variables {
    environment_variables = { LOG_LEVEL = "DEBUG" }
  }

  expect_failures = [var.environment_variables]
}

run "a_secret_without_a_whole_arn_is_refused" {
  command = plan

  variables {
    secrets = { PARTNER_KEY = "partner" }
  }

  expect_failures = [var.secrets]
}
