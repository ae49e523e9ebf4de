# Records who purged a queue and who received or deleted dead-letter messages, for accounts without
# such a trail. Management events are charged from the second trail on, data events always.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-logging-using-cloudtrail.html

variable "broker" {
  description = <<-EOT
    The queues; every attribute is optional.
    keep_trail_days: how many days to keep a CloudTrail record of management events of this account
    and of all access to dead-letter messages (default 0, no trail).
  EOT
  type        = any
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.broker), ["keep_trail_days"])) == 0
    error_message = "broker takes keep_trail_days."
  }
  validation {
    condition     = try(var.broker.keep_trail_days, 0) >= 0 && floor(try(var.broker.keep_trail_days, 0)) == try(var.broker.keep_trail_days, 0)
    error_message = "The broker's keep_trail_days must be a whole number, 0 or more."
  }
}

locals {
  broker = merge({ keep_trail_days = 0 }, var.broker)
}

locals {
  trail            = local.broker.keep_trail_days > 0 ? { this = true } : {}
  trail_arn        = "arn:${local.partition}:cloudtrail:${local.region}:${local.account}:trail/${local.name}"
  trail_bucket     = "${local.name}-trail-${local.bucket_suffix}"
  trail_bucket_arn = "arn:${local.partition}:s3:::${local.trail_bucket}"
}

resource "aws_cloudtrail" "this" {
  for_each = local.trail

  name                       = local.name
  s3_bucket_name             = aws_s3_bucket.trail[each.key].id
  enable_log_file_validation = true

  advanced_event_selector {
    name = "Changes"
    field_selector {
      field  = "eventCategory"
      equals = ["Management"]
    }
    field_selector {
      field  = "readOnly"
      equals = ["false"]
    }
  }
  advanced_event_selector {
    name = "Dead-letter messages"
    field_selector {
      field  = "eventCategory"
      equals = ["Data"]
    }
    field_selector {
      field  = "resources.type"
      equals = ["AWS::SQS::Queue"]
    }
    field_selector {
      field  = "resources.ARN"
      equals = local.dead_letter_arns
    }
  }

  depends_on = [aws_s3_bucket_policy.trail]
}

resource "aws_s3_bucket" "trail" {
  for_each = local.trail

  bucket        = local.trail_bucket
  force_destroy = !var.protect_data
}

resource "aws_s3_bucket_public_access_block" "trail" {
  for_each = local.trail

  bucket                  = aws_s3_bucket.trail[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "trail" {
  for_each = local.trail

  bucket = aws_s3_bucket.trail[each.key].id

  rule {
    id     = "expire"
    status = "Enabled"
    filter {}
    expiration {
      days = local.broker.keep_trail_days
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

# https://docs.aws.amazon.com/awscloudtrail/latest/userguide/create-s3-bucket-policy-for-cloudtrail.html
data "aws_iam_policy_document" "trail" {
  statement {
    sid       = "LookAtBucket"
    actions   = ["s3:GetBucketAcl"]
    resources = [local.trail_bucket_arn]

    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.trail_arn]
    }
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["s3:PutObject"]
    resources = ["${local.trail_bucket_arn}/AWSLogs/${local.account}/*"]

    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.trail_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "s3:x-amz-acl"
      values   = ["bucket-owner-full-control"]
    }
  }

  statement {
    sid       = "RefusePlainText"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [local.trail_bucket_arn, "${local.trail_bucket_arn}/*"]

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

resource "aws_s3_bucket_policy" "trail" {
  for_each = local.trail

  bucket = aws_s3_bucket.trail[each.key].id
  policy = data.aws_iam_policy_document.trail.json
  # S3 rejects concurrent changes of one bucket's access settings.
  depends_on = [aws_s3_bucket_public_access_block.trail]
}
