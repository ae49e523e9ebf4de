locals {
  queue_name_prefix = "${local.name}-"

  # ARNs are built from names instead of read from resources, so that plans and tests show complete
  # policies.
  sqs_arn          = "arn:${local.partition}:sqs:${local.region}:${local.account}"
  queue_arns       = [for queue in local.queues : "${local.sqs_arn}:${queue.queue_name}"]
  dead_letter_arns = [for queue in local.queues : "${local.sqs_arn}:${queue.dead_letter_name}"]

  broker_environment        = { QUEUE_URL_BASE = "https://sqs.${local.region}.${local.dns_suffix}/${local.account}" }
  broker_secrets            = []
  broker_interface_services = ["sqs"]
  broker_sessions           = false

  # The batch actions need the permission of the single action.
  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html
  broker_producer_statements = {
    Send = { actions = ["sqs:SendMessage"], resources = local.queue_arns }
  }
  broker_worker_statements = {
    Work = { actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"], resources = local.queue_arns }
    # Tasks send tasks, and workers send failed messages to the dead-letter queue at once.
    Send = { actions = ["sqs:SendMessage"], resources = concat(local.queue_arns, local.dead_letter_arns) }
  }
  broker_operator_statements = {
    Look = { actions = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"], resources = concat(local.queue_arns, local.dead_letter_arns) }
    # `doctor` finds queues that are no longer in the contract. ListQueues supports no resource but
    # "*"; the condition limits it to the region.
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html
    ListQueues = {
      actions    = ["sqs:ListQueues"]
      resources  = ["*"]
      conditions = { "aws:RequestedRegion" = local.region }
    }
    CountMessages = {
      actions   = ["sqs:GetQueueAttributes"]
      resources = ["${local.sqs_arn}:${local.queue_name_prefix}*"]
    }
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-configure-dead-letter-queue-redrive.html
    HandleDeadLetters = {
      actions = [
        "sqs:StartMessageMoveTask",
        "sqs:ListMessageMoveTasks",
        "sqs:CancelMessageMoveTask",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:PurgeQueue",
      ]
      resources = local.dead_letter_arns
    }
    # Resends to the queue, and restores messages from a file.
    Send = { actions = ["sqs:SendMessage"], resources = concat(local.queue_arns, local.dead_letter_arns) }
  }
}

# A queue that leaves the contract, or is renamed there, would be destroyed with its messages, so
# prevent_destroy fails the plan. Terraform shows the first line of the resource with its error,
# hence the comment there.
# https://developer.hashicorp.com/terraform/language/meta-arguments/lifecycle#prevent_destroy

resource "aws_sqs_queue" "main" { # docs/operations.md says how to remove or rename a queue
  for_each = local.queues

  name                       = each.value.queue_name
  visibility_timeout_seconds = each.value.visibility_timeout_seconds
  message_retention_seconds  = each.value.retention_seconds
  receive_wait_time_seconds  = local.contract.wait_time_seconds
  # SQS allows 1 MiB; the provider allows more than 262,144 bytes from version 6.8 on.
  max_message_size = local.contract.max_message_bytes
  redrive_policy = jsonencode({
    deadLetterTargetArn = "${local.sqs_arn}:${each.value.dead_letter_name}"
    maxReceiveCount     = each.value.max_receive_count
  })

  fifo_queue = local.fifo
  # High throughput: quotas apply per message group. Both settings are required, which the provider
  # does not check.
  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/high-throughput-fifo.html
  deduplication_scope   = local.fifo ? "messageGroup" : null
  fifo_throughput_limit = local.fifo ? "perMessageGroupId" : null

  sqs_managed_sse_enabled = local.own_key == null ? true : null
  kms_master_key_id       = local.own_key
  policy                  = data.aws_iam_policy_document.tls_only["${local.sqs_arn}:${each.value.queue_name}"].json

  depends_on = [aws_sqs_queue.dead_letters]

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_sqs_queue" "dead_letters" { # docs/operations.md says how to remove or rename a queue
  for_each = local.queues

  name                      = each.value.dead_letter_name
  message_retention_seconds = local.contract.dead_letter_retention_seconds
  max_message_size          = local.contract.max_message_bytes
  fifo_queue                = local.fifo
  # One dead-letter queue per queue, so that a redrive has one destination.
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = ["${local.sqs_arn}:${each.value.queue_name}"]
  })

  sqs_managed_sse_enabled = local.own_key == null ? true : null
  kms_master_key_id       = local.own_key
  policy                  = data.aws_iam_policy_document.tls_only["${local.sqs_arn}:${each.value.dead_letter_name}"].json

  lifecycle {
    prevent_destroy = true
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

output "queues" {
  description = "Names of every queue and its dead-letter queue."
  value = {
    for name, queue in local.queues : name => {
      queue        = aws_sqs_queue.main[name].name
      dead_letters = aws_sqs_queue.dead_letters[name].name
    }
  }
}
