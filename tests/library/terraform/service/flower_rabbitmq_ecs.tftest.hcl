# The plan of Flower with the real provider, see plan.tftest.hcl, and of its container with a mock.

mock_provider "aws" {
  alias           = "mock"
  source          = "./mocks"
  override_during = plan
}

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

run "there_is_none_unless_asked_for" {
  command = plan

  assert {
    condition = (
      length(aws_ecs_service.flower) + length(aws_ecs_task_definition.flower) + length(aws_iam_role.flower) +
      length(aws_iam_policy.flower) + length(aws_secretsmanager_secret.flower) == 0 &&
      !contains(keys(aws_vpc_endpoint.interface), "ssmmessages")
    )
    error_message = "Flower runs, or has permissions, without flower_image_tag."
  }

  # Policies, as sent to AWS.

  assert {
    condition = {
      for statement in jsondecode(data.aws_iam_policy_document.flower.json).Statement : statement.Sid => flatten([statement.Resource])
      if contains(flatten([statement.Action]), "secretsmanager:GetSecretValue") || strcontains(jsonencode(statement.Action), "ssm:")
      } == {
      ReadFlowerPassword = ["arn:aws:secretsmanager:${local.contract.region}:123456789012:secret:${local.contract.service}-staging-broker-flower-??????"]
      ForwardPort = [
        "arn:aws:ssm:${local.contract.region}::document/AWS-StartPortForwardingSession",
        "arn:aws:ecs:${local.contract.region}:123456789012:task/${local.contract.service}-staging/*",
      ]
      EndOwnSessions = ["arn:aws:ssm:${local.contract.region}:123456789012:session/$${aws:userid}-*"]
    }
    error_message = "Users of Flower lack permissions, or have more than they need."
  }

  assert {
    condition = [
      for statement in jsondecode(data.aws_iam_policy_document.read_flower_password.json).Statement : statement.Action
    ] == ["secretsmanager:GetSecretValue"]
    error_message = "What starts Flower may do more than read its password."
  }
}

run "tags_that_are_none_are_refused" {
  command = plan

  variables {
    broker = { flower_image_tag = "flower:1" }
  }

  expect_failures = [var.broker]
}

run "flower" {
  command   = plan
  providers = { aws = aws.mock }

  variables {
    broker      = { flower_image_tag = "flower-1" }
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/1"
    network     = { internet_access = "none" }
  }

  assert {
    condition = (
      aws_ecs_service.flower["this"].enable_execute_command &&
      length(aws_ecs_service.flower["this"].load_balancer) == 0 &&
      contains(keys(aws_vpc_endpoint.interface), "ssmmessages") &&
      contains(jsondecode(aws_ecs_task_definition.flower["this"].container_definitions)[0].command, "--address=127.0.0.1")
    )
    error_message = "Flower could not be reached by a session, or by something else."
  }

  assert {
    condition     = alltrue([for service in aws_ecs_service.worker : !service.enable_execute_command])
    error_message = "Flower's sessions open shells in workers."
  }

  assert {
    condition     = aws_secretsmanager_secret.flower["this"].kms_key_id == var.kms_key_arn
    error_message = "Flower's password is not encrypted with the owner's key."
  }

  assert {
    condition     = endswith(jsondecode(aws_ecs_task_definition.flower["this"].container_definitions)[0].image, "/${local.name}:flower-1")
    error_message = "Flower is another image."
  }

  assert {
    condition = (
      [for secret in jsondecode(aws_ecs_task_definition.flower["this"].container_definitions)[0].secrets : secret.name] == concat(
        ["FLOWER_BASIC_AUTH"],
        local.contract.credentials == "keys" ? ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] : [],
        ["BROKER_USERNAME", "BROKER_PASSWORD"],
      ) &&
      { for variable in jsondecode(aws_ecs_task_definition.flower["this"].container_definitions)[0].environment : variable.name => variable.value } == { for name, value in output.environment : name => value }
    )
    error_message = "Flower lets everybody in, or cannot connect."
  }
}
