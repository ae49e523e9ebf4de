variable "results" {
  description = "The result backend; S3 takes no attributes."
  type        = any
  default     = {}

  validation {
    condition     = length(var.results) == 0
    error_message = "results takes no attributes."
  }
}

locals {
  results_bucket = "${local.name}-results-${local.bucket_suffix}"
  results_arn    = "arn:${local.partition}:s3:::${local.results_bucket}"

  results_environment = { RESULTS_BUCKET = local.results_bucket }
  results_alarm_arns  = []

  results_look_statements = {
    LookAtResults = { actions = ["s3:ListBucket", "s3:GetLifecycleConfiguration"], resources = [local.results_arn] }
  }
  results_read_statements = {
    ReadResults = { actions = ["s3:GetObject"], resources = ["${local.results_arn}/results/*"] }
    # Without it S3 returns 403 instead of 404 for a result that does not exist yet, which Celery
    # treats as an error.
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
    TellMissingResults = { actions = ["s3:ListBucket"], resources = [local.results_arn] }
  }
  results_worker_statements = merge(local.results_read_statements, {
    WriteResults = { actions = ["s3:PutObject", "s3:DeleteObject"], resources = ["${local.results_arn}/results/*"] }
  })
}

resource "aws_s3_bucket" "results" {
  bucket        = local.results_bucket
  force_destroy = !var.protect_data
}

resource "aws_s3_bucket_public_access_block" "results" {
  bucket                  = aws_s3_bucket.results.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "results" {
  bucket = aws_s3_bucket.results.id

  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = local.own_key == null ? "AES256" : "aws:kms"
      kms_master_key_id = local.own_key
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "results" {
  bucket = aws_s3_bucket.results.id

  rule {
    id     = "expire-results"
    status = "Enabled"
    filter {
      prefix = "results/"
    }
    expiration {
      days = ceil(local.contract.result_expires_seconds / 86400)
    }
  }
  rule {
    id     = "drop-unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

data "aws_iam_policy_document" "results_tls_only" {
  statement {
    sid       = "RefusePlainText"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [local.results_arn, "${local.results_arn}/*"]

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

resource "aws_s3_bucket_policy" "results" {
  bucket = aws_s3_bucket.results.id
  policy = data.aws_iam_policy_document.results_tls_only.json
  # S3 rejects concurrent changes of one bucket's access settings.
  depends_on = [aws_s3_bucket_public_access_block.results]
}
