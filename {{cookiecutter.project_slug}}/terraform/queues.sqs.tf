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
