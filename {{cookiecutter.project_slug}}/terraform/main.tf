# The service in AWS, and whatever else of yours belongs to it. Everything that this module takes and returns is listed in
# chassis/README.md.

locals {
  # The one place for names, numbers and choices; the service reads the same file.
  contract = jsondecode(file("${path.module}/../contract.json"))
}

module "service" {
  source = "../chassis/terraform/service"

  contract    = local.contract
  environment = var.environment
  image_tag   = var.image_tag

  # What tasks need of their own. For a policy, write a data "aws_iam_policy_document" in a file of yours, and pass its `json`
  # as task_policy_json; docs/extending.md has an example.
  environment_variables = {}
  secrets               = {}

  # What differs between environments; environments/ has the values.
  architecture       = var.architecture
  broker             = var.broker
  compute            = var.compute
  results            = var.results
  kms_key_arn        = var.kms_key_arn
  log_level          = var.log_level
  log_retention_days = var.log_retention_days
  monthly_budget_usd = var.monthly_budget_usd
  protect_data       = var.protect_data
  runbook_url        = var.runbook_url
  subnet_ids         = var.subnet_ids
  use_spot           = var.use_spot
  vpc_cidr           = var.vpc_cidr
  vpc_id             = var.vpc_id
}

# Resources of yours go into files beside this one. A name that begins with "${local.contract.service}-${var.environment}-"
# keeps environments apart. Pipelines may create what the module creates; docs/extending.md says how to allow them more.

provider "aws" {
  region = local.contract.region

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
