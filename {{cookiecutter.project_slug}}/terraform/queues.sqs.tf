resource "aws_sqs_queue" "main" {
  for_each = local.queues

  name                       = each.value.queue_name
  visibility_timeout_seconds = each.value.visibility_timeout_seconds
  message_retention_seconds  = each.value.retention_seconds
  receive_wait_time_seconds  = local.contract.wait_time_seconds
  # SQS takes 1 MiB; this provider took more than 262,144 only from version 6.8 on.
  max_message_size = local.contract.max_message_bytes
  redrive_policy = jsonencode({
    deadLetterTargetArn = "${local.sqs_arn}:${each.value.dead_letter_name}"
    maxReceiveCount     = each.value.max_receive_count
  })

  fifo_queue = local.fifo
  # High throughput: limits count per message group. The two belong together, which the provider does not check.
  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/high-throughput-fifo.html
  deduplication_scope   = local.fifo ? "messageGroup" : null
  fifo_throughput_limit = local.fifo ? "perMessageGroupId" : null

  sqs_managed_sse_enabled = var.kms_key_arn == "" ? true : null
  kms_master_key_id       = var.kms_key_arn == "" ? null : var.kms_key_arn
  policy                  = data.aws_iam_policy_document.tls_only["${local.sqs_arn}:${each.value.queue_name}"].json

  # The rules that lose or repeat tasks when broken, and that neither Terraform nor AWS checks.
  lifecycle {
    precondition {
      condition     = each.value.soft_limit_seconds < each.value.hard_limit_seconds
      error_message = "${each.key}: soft_limit_seconds must be less than hard_limit_seconds."
    }
    precondition {
      condition     = each.value.longest_delivery_seconds <= each.value.visibility_timeout_seconds || try(each.value.heartbeat_seconds, 0) > 0
      error_message = "${each.key}: visibility_timeout_seconds must be at least max_countdown_seconds + hard_limit_seconds + 60, or tasks run twice."
    }
    precondition {
      condition     = each.value.visibility_timeout_seconds * each.value.max_receive_count < each.value.retention_seconds
      error_message = "${each.key}: retention_seconds must be more than visibility_timeout_seconds times max_receive_count, or messages expire on their way."
    }
    precondition {
      condition     = each.value.max_receive_count >= 1 && each.value.max_receive_count <= 1000 && floor(each.value.max_receive_count) == each.value.max_receive_count
      error_message = "${each.key}: max_receive_count must be a whole number between 1 and 1000."
    }
    precondition {
      condition     = local.contract.wait_time_seconds >= 0 && local.contract.wait_time_seconds <= 20
      error_message = "wait_time_seconds must be between 0 and 20."
    }
  }

  depends_on = [aws_sqs_queue.dead_letters]
}

resource "aws_sqs_queue" "dead_letters" {
  for_each = local.queues

  name                      = each.value.dead_letter_name
  message_retention_seconds = local.contract.dead_letter_retention_seconds
  max_message_size          = local.contract.max_message_bytes
  fifo_queue                = local.fifo
  # One dead-letter queue per queue: whoever redrives knows where messages go back to.
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = ["${local.sqs_arn}:${each.value.queue_name}"]
  })

  sqs_managed_sse_enabled = var.kms_key_arn == "" ? true : null
  kms_master_key_id       = var.kms_key_arn == "" ? null : var.kms_key_arn
  policy                  = data.aws_iam_policy_document.tls_only["${local.sqs_arn}:${each.value.dead_letter_name}"].json

  lifecycle {
    precondition {
      # A message keeps the time of its first sending when it is dead-lettered.
      # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/setting-up-dead-letter-queue-retention.html
      condition = (
        each.value.retention_seconds < local.contract.dead_letter_retention_seconds ||
        each.value.retention_seconds == 1209600 && local.contract.dead_letter_retention_seconds == 1209600
      )
      error_message = "${each.key}: dead_letter_retention_seconds must be more than retention_seconds, or dead letters expire unseen."
    }
  }
}

data "aws_iam_policy_document" "tls_only" {
  for_each = toset(concat(local.queue_arns, local.dead_letter_arns))

  statement {
    sid       = "RefusePlainText"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [each.value]

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
