variable "results" {
  description = "The result backend; DynamoDB takes no attributes."
  type        = any
  default     = {}

  validation {
    condition     = length(var.results) == 0
    error_message = "results takes no attributes."
  }
}

locals {
  results_table = "${local.name}-results"
  results_arn   = "arn:${local.partition}:dynamodb:${local.region}:${local.account}:table/${local.results_table}"

  results_environment = { RESULTS_TABLE = local.results_table }
  results_alarm_arns  = []

  results_look_statements = {
    LookAtResults = { actions = ["dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive"], resources = [local.results_arn] }
  }
  results_read_statements = {
    ReadResults = {
      # PutItem: the producer of a chord stores the ids of its tasks.
      actions   = ["dynamodb:GetItem", "dynamodb:PutItem"]
      resources = [local.results_arn]
    }
  }
  results_worker_statements = merge(local.results_read_statements, {
    WriteResults = {
      actions   = ["dynamodb:UpdateItem", "dynamodb:DeleteItem"]
      resources = [local.results_arn]
    }
  })
}

resource "aws_dynamodb_table" "results" {
  name                        = local.results_table
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "id"
  deletion_protection_enabled = var.protect_data

  attribute {
    name = "id"
    type = "S"
  }

  # Celery sets the names of the key and the TTL attribute.
  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  # Tables are always encrypted; `enabled` selects a KMS key instead of the one that DynamoDB owns.
  server_side_encryption {
    enabled     = local.own_key != null
    kms_key_arn = local.own_key
  }
}
