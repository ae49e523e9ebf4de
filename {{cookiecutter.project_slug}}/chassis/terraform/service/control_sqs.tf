# Remote control of workers, if the contract has it: SQS has no broadcast, so they poll a table for
# paused queues, revoked tasks and requests, and answer there.

locals {
  remote_control = try(local.contract.remote_control, false) ? { this = true } : {}
  control_table  = "${local.name}-control"

  control_environment = { for this in keys(local.remote_control) : "CONTROL_TABLE" => local.control_table }
  # The same for workers, which answer; for producers, which may revoke a task; and for operators.
  control_statements = {
    for this in keys(local.remote_control) : "Control" => {
      actions   = ["dynamodb:Query", "dynamodb:PutItem", "dynamodb:DeleteItem"]
      resources = ["arn:${local.partition}:dynamodb:${local.region}:${local.account}:table/${local.control_table}"]
    }
  }
}

# Without protection from deletion: no message and no result is in it.
resource "aws_dynamodb_table" "control" {
  for_each = local.remote_control

  name         = local.control_table
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "scope"
  range_key    = "key"

  attribute {
    name = "scope"
    type = "S"
  }
  attribute {
    name = "key"
    type = "S"
  }

  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }

  # Tables are always encrypted; `enabled` selects a KMS key instead of the one that DynamoDB owns.
  server_side_encryption {
    enabled     = local.own_key != null
    kms_key_arn = local.own_key
  }
}
