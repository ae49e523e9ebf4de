# Remote control of workers, if the contract has it: SQS has no broadcast, so they poll a table for
# paused queues, revoked tasks and requests, and answer there.

locals {
  remote_control = try(local.contract.remote_control, false) ? { this = true } : {}
  control_table  = "${local.name}-control"

  control_environment = { for this in keys(local.remote_control) : "CONTROL_TABLE" => local.control_table }
  control_arns        = ["arn:${local.partition}:dynamodb:${local.region}:${local.account}:table/${local.control_table}"]

  # Workers read commands, answer, and delete what has expired; operators write commands, read answers and delete them.
  control_statements = {
    for this in keys(local.remote_control) : "Control" => { actions = ["dynamodb:Query", "dynamodb:PutItem", "dynamodb:DeleteItem"], resources = local.control_arns }
  }
  # They revoke tasks, and wait for no answer.
  control_producer_statements = {
    for this in keys(local.remote_control) : "Control" => { actions = ["dynamodb:PutItem"], resources = local.control_arns }
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
