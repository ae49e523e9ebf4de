# The bucket for the Terraform state of one environment; `make bootstrap` creates it once. Its own
# state is a file in terraform/environments/, which may be lost: nothing here changes, and the
# bucket cannot be destroyed.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}

variable "environment" {
  description = "Name of the environment, such as staging."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,10}$", var.environment))
    error_message = "The environment must be 1 to 11 lower-case letters and digits, beginning with a letter."
  }
}

locals {
  contract = jsondecode(file("${path.module}/../../../contract.json"))
  # Bucket names are global to all accounts, and too short for an account and a region.
  bucket = "${local.contract.service}-${var.environment}-state-${substr(sha256("${data.aws_caller_identity.current.account_id} ${local.contract.region}"), 0, 12)}"
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

resource "aws_s3_bucket" "state" {
  bucket = local.bucket

  lifecycle {
    prevent_destroy = true
  }
}

# Earlier versions of the state can be restored.
resource "aws_s3_bucket_versioning" "state" {
  bucket = aws_s3_bucket.state.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    id     = "drop-old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 90
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  depends_on = [aws_s3_bucket_versioning.state]
}

resource "aws_s3_bucket_public_access_block" "state" {
  bucket                  = aws_s3_bucket.state.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

data "aws_iam_policy_document" "tls_only" {
  statement {
    sid       = "RefusePlainText"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.state.arn, "${aws_s3_bucket.state.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "state" {
  bucket     = aws_s3_bucket.state.id
  policy     = data.aws_iam_policy_document.tls_only.json
  depends_on = [aws_s3_bucket_public_access_block.state]
}

output "backend" {
  description = "Content of terraform/environments/<environment>.s3.tfbackend."
  value       = <<-EOT
    bucket       = "${aws_s3_bucket.state.bucket}"
    key          = "${local.contract.service}.tfstate"
    region       = "${local.contract.region}"
    encrypt      = true
    use_lockfile = true
  EOT
}
