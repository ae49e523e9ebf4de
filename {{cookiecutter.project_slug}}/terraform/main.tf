# The service's AWS resources. chassis/README.md lists all inputs and outputs of the module. Put your own resources into
# other files of this folder.

locals {
  # The single source of names, numbers and options; the service reads the same file.
  contract = jsondecode(file("${path.module}/../contract.json"))
}

module "service" {
  source = "../chassis/terraform/service"

  contract    = local.contract
  environment = var.environment
  image_tag   = var.image_tag

  # Environment variables and secrets of your tasks. For IAM permissions, define a data "aws_iam_policy_document" in a
  # file of your own, and pass its `json` as task_policy_json; docs/extending.md has an example.
  environment_variables = {}
  secrets               = {}

  # These differ between environments; their values are in environments/.
  alarm_actions            = var.alarm_actions
  architecture             = var.architecture
  broker                   = var.broker
  compute                  = var.compute
  results                  = var.results
  image_repository         = var.image_repository
  kms_key_arn              = var.kms_key_arn
  log_level                = var.log_level
  log_retention_days       = var.log_retention_days
  monthly_budget_usd       = var.monthly_budget_usd
  network                  = var.network
  permissions_boundary_arn = var.permissions_boundary_arn
  protect_data             = var.protect_data
  runbook_url              = var.runbook_url
  use_spot                 = var.use_spot
}

# Begin the names of your resources with "${local.contract.service}-${var.environment}-", so that they differ between
# environments. Pipelines may only create what the module creates; docs/extending.md shows how to allow them more.

provider "aws" {
  region = local.contract.region

  # On every resource, and on instances and volumes.
  default_tags {
    tags = {
      Service     = local.contract.service
      Environment = var.environment
      ManagedBy   = "terraform"
    }
  }
}

terraform {
  # 1.11: the S3 backend locks its state without a DynamoDB table.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }

  # Bucket and key are in environments/<environment>.s3.tfbackend, which `make bootstrap` writes.
  backend "s3" {}
}
