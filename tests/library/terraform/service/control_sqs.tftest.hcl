# Remote control with the real provider. test_terraform.py takes the operator's permissions from this plan.

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

run "no_remote_control" {
  command = plan

  assert {
    condition = (
      length(aws_dynamodb_table.control) == 0 &&
      !strcontains(jsonencode(values(data.aws_iam_policy_document.this)[*].json), "-control") &&
      !contains(keys(local.environment), "CONTROL_TABLE")
    )
    error_message = "A service without remote control has something of it."
  }
}

run "remote_control" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), { remote_control = true, long_delays = true })
    network  = { internet_access = "none" }
  }

  assert {
    condition = (
      aws_dynamodb_table.control["this"].name == local.environment.CONTROL_TABLE &&
      aws_dynamodb_table.control["this"].billing_mode == "PAY_PER_REQUEST" &&
      [aws_dynamodb_table.control["this"].hash_key, aws_dynamodb_table.control["this"].range_key] == ["scope", "key"] &&
      aws_dynamodb_table.control["this"].ttl[0].enabled && aws_dynamodb_table.control["this"].ttl[0].attribute_name == "expires_at"
    )
    error_message = "The table is not the one that the service uses."
  }

  assert {
    condition = alltrue([
      for role, policy in data.aws_iam_policy_document.this : [
        for statement in jsondecode(policy.json).Statement : [toset(flatten([statement.Action])), statement.Resource]
        if strcontains(jsonencode(statement.Resource), "-control")
        ] == [[
          toset(role == "producer" ? ["dynamodb:PutItem"] : ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query"]),
          "arn:aws:dynamodb:${local.region}:123456789012:table/${local.name}-control",
      ]]
    ])
    error_message = "A worker, producer or operator may do more or less with the table than it must."
  }

  assert {
    condition     = contains(keys(aws_vpc_endpoint.gateway), "dynamodb")
    error_message = "Without internet access, workers cannot reach the table."
  }
}

run "remote_control_with_the_owners_key" {
  command = plan

  variables {
    contract    = merge(jsondecode(file("../../../contract.json")), { remote_control = true })
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/0"
  }

  assert {
    condition     = aws_dynamodb_table.control["this"].server_side_encryption[0].enabled && aws_dynamodb_table.control["this"].server_side_encryption[0].kms_key_arn == var.kms_key_arn
    error_message = "The table is not encrypted with the owner's key."
  }
}
