terraform {
  # 1.11: the S3 backend locks its state without a DynamoDB table.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}

# Nearly everything refers to the account, so an invalid contract ends the plan here, with one
# error.
data "aws_caller_identity" "current" {
  lifecycle {
    precondition {
      condition     = length(local.broken_rules) == 0
      error_message = "contract.json breaks ${length(local.broken_rules) == 1 ? "1 rule" : "${length(local.broken_rules)} rules"}:\n  ${join("\n  ", [for rule in local.broken_rules : replace(rule, "\n", "\n  ")])}"
    }
  }
}
data "aws_partition" "current" {}
