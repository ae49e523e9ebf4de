# What the reports need in AWS: a bucket, and the permission to write and read its objects.

variable "reports_secrets" {
  description = "ARNs of the secrets or parameters with DATABASE_URL and SMTP_URL, by these names"
  type        = map(string)
  default     = {}
}

variable "mail_from" {
  description = "Sender of mails, which the mail server must allow"
  type        = string
  default     = "reports@example.com"
}

resource "aws_s3_bucket" "reports" {
  bucket_prefix = "${local.contract.service}-${var.environment}-reports-"
  force_destroy = !var.protect_data
}

resource "aws_s3_bucket_public_access_block" "reports" {
  bucket                  = aws_s3_bucket.reports.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# Also deletes the file of a report that was cancelled while it was stored.
resource "aws_s3_bucket_lifecycle_configuration" "reports" {
  bucket = aws_s3_bucket.reports.id

  rule {
    id     = "expire-reports"
    status = "Enabled"

    filter {
      prefix = "reports/"
    }

    expiration {
      days = 90
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

# The API needs the same, for its links.
data "aws_iam_policy_document" "tasks" {
  statement {
    sid       = "Reports"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.reports.arn}/reports/*"]
  }
}
