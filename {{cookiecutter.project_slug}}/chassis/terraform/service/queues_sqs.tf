module "names" {
  source = "../names"

  prefix      = local.queue_name_prefix
  environment = var.environment
  queues      = local.effective_queues
}

locals {
  queue_name_prefix = "${local.name}-"
  queue_accounts    = { for queue in local.effective_queues : queue.name => try(queue.account, "") == "" ? local.account : queue.account }

  # ARNs are built from names instead of read from resources, so that plans and tests show complete
  # policies.
  sqs_arns = { for name, account in local.queue_accounts : name => "arn:${local.partition}:sqs:${local.region}:${account}" }
  broker_queues = {
    for name, queue in module.names.queues : name => merge(queue, {
      arn             = "${local.sqs_arns[name]}:${queue.queue_name}"
      dead_letter_arn = "${local.sqs_arns[name]}:${queue.dead_letter_name}"
      # SQS publishes metrics in the account of the queue only.
      has_metrics = local.queue_accounts[name] == local.account
    })
  }
  queue_urls = {
    for name, queue in local.broker_queues : name => "https://sqs.${local.region}.${local.dns_suffix}/${local.queue_accounts[name]}/${queue.queue_name}"
  }
  queue_arns       = values(local.broker_queues)[*].arn
  dead_letter_arns = values(local.broker_queues)[*].dead_letter_arn
  # Those that operators look after: also what EventBridge Scheduler could not send.
  operated_dead_letter_arns = concat(local.dead_letter_arns, [for this in keys(local.uses_scheduler) : local.scheduler_dead_letter_arn])

  # Queues that are created and configured here; the service only uses the others.
  managed_queues = {
    for name, queue in local.queues : name => queue if try(queue.managed, true) && local.queue_accounts[name] == local.account
  }

  broker_environment = merge(
    { QUEUE_URL_BASE = "https://sqs.${local.region}.${local.dns_suffix}/${local.account}" },
    local.scheduler_environment,
    local.control_environment,
  )
  broker_secrets            = []
  broker_interface_services = concat(["sqs"], local.scheduler_interface_services)
  broker_sessions           = false

  # EventBridge Scheduler fires schedules.
  beat          = {}
  beat_machines = {}

  # The batch actions need the permission of the single action.
  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html
  broker_producer_statements = merge(local.scheduler_sender_statements, local.control_producer_statements, {
    Send = { actions = ["sqs:SendMessage"], resources = local.queue_arns }
  })
  broker_worker_statements = merge(local.scheduler_sender_statements, local.control_statements, {
    Work = { actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"], resources = local.queue_arns }
    # Tasks send tasks, and workers send failed messages to the dead-letter queue at once.
    Send = { actions = ["sqs:SendMessage"], resources = concat(local.queue_arns, local.dead_letter_arns) }
  })
  broker_operator_statements = merge(local.scheduler_operator_statements, local.control_statements, {
    Look = { actions = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ListDeadLetterSourceQueues"], resources = concat(local.queue_arns, local.operated_dead_letter_arns) }
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
      resources = ["arn:${local.partition}:sqs:${local.region}:${local.account}:${local.queue_name_prefix}*"]
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
      resources = local.operated_dead_letter_arns
    }
    # Resends to the queue, and restores messages from a file.
    Send = { actions = ["sqs:SendMessage"], resources = concat(local.queue_arns, local.operated_dead_letter_arns) }
  })
}

# A queue that exists already is imported; it keeps its name and messages, and its attributes, such
# as its policy, become those below.
#
# A queue that leaves the contract, or is renamed there, would be destroyed with its messages, so
# prevent_destroy fails the plan. Terraform shows the first line of the resource with its error,
# hence the comment there.
# https://developer.hashicorp.com/terraform/language/meta-arguments/lifecycle#prevent_destroy

resource "aws_sqs_queue" "main" { # docs/operations.md says how to remove or rename a queue
  for_each = local.managed_queues

  name                       = each.value.queue_name
  visibility_timeout_seconds = each.value.visibility_timeout_seconds
  message_retention_seconds  = each.value.retention_seconds
  receive_wait_time_seconds  = local.contract.wait_time_seconds
  # SQS allows 1 MiB; the provider allows more than 262,144 bytes from version 6.8 on.
  max_message_size = local.contract.max_message_bytes
  redrive_policy = jsonencode({
    deadLetterTargetArn = each.value.dead_letter_arn
    maxReceiveCount     = each.value.max_receive_count
  })

  fifo_queue = each.value.fifo
  # High throughput: quotas apply per message group. Both settings are required, which the provider
  # does not check.
  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/high-throughput-fifo.html
  deduplication_scope   = each.value.fifo ? "messageGroup" : null
  fifo_throughput_limit = each.value.fifo ? "perMessageGroupId" : null

  sqs_managed_sse_enabled = local.own_key == null ? true : null
  kms_master_key_id       = local.own_key
  policy                  = data.aws_iam_policy_document.tls_only[each.value.arn].json

  depends_on = [aws_sqs_queue.dead_letters]

  lifecycle {
    prevent_destroy = true
    # The service states the deduplication id of each message. Other producers of a queue that
    # existed already may rely on SQS to derive it.
    ignore_changes = [content_based_deduplication]
  }
}

resource "aws_sqs_queue" "dead_letters" { # docs/operations.md says how to remove or rename a queue
  for_each = local.managed_queues

  name                      = each.value.dead_letter_name
  message_retention_seconds = local.contract.dead_letter_retention_seconds
  max_message_size          = local.contract.max_message_bytes
  fifo_queue                = each.value.fifo
  # One dead-letter queue per queue, so that a redrive has one destination.
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [each.value.arn]
  })

  sqs_managed_sse_enabled = local.own_key == null ? true : null
  kms_master_key_id       = local.own_key
  policy                  = data.aws_iam_policy_document.tls_only[each.value.dead_letter_arn].json

  lifecycle {
    prevent_destroy = true
  }
}

data "aws_iam_policy_document" "tls_only" {
  for_each = toset(concat(
    flatten([for queue in local.managed_queues : [queue.arn, queue.dead_letter_arn]]),
    [for this in keys(local.uses_scheduler) : local.scheduler_dead_letter_arn],
  ))

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
      queue        = queue.queue_name
      dead_letters = queue.dead_letter_name
    }
  }
}
