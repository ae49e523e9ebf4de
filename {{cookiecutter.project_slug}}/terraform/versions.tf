terraform {
  # 1.11: the S3 backend locks its state without a DynamoDB table.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7.0"
    }
  }

  # Bucket and key stand in environments/<environment>.s3.tfbackend, which `make bootstrap` writes.
  backend "s3" {}
}

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

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
