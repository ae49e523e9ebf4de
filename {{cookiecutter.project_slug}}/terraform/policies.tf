# Three policies, for whoever sends, works and is on call. Batches are authorised by the single
# action: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html

data "aws_iam_policy_document" "producer" {
  statement {
    sid       = "Send"
    actions   = ["sqs:SendMessage"]
    resources = local.queue_arns
  }

  dynamic "statement" {
    for_each = local.results_read_statements
    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = statement.value.resources
    }
  }

  dynamic "statement" {
    for_each = local.own_key
    content {
      sid       = "EncryptMessages"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

data "aws_iam_policy_document" "worker" {
  statement {
    sid       = "Work"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
    resources = local.queue_arns
  }

  # Tasks send tasks; what failed for good is sent to the dead-letter queue at once.
  statement {
    sid       = "Send"
    actions   = ["sqs:SendMessage"]
    resources = concat(local.queue_arns, local.dead_letter_arns)
  }

  dynamic "statement" {
    for_each = local.results_worker_statements
    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = statement.value.resources
    }
  }

  dynamic "statement" {
    for_each = local.own_key
    content {
      sid       = "DecryptMessages"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

data "aws_iam_policy_document" "operator" {
  source_policy_documents = [data.aws_iam_policy_document.look_at_workers.json]

  statement {
    sid       = "Look"
    actions   = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
    resources = concat(local.queue_arns, local.dead_letter_arns)
  }

  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-configure-dead-letter-queue-redrive.html
  statement {
    sid = "HandleDeadLetters"
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

  # Back to the queue, or from a file to where it was.
  statement {
    sid       = "Send"
    actions   = ["sqs:SendMessage"]
    resources = concat(local.queue_arns, local.dead_letter_arns)
  }

  dynamic "statement" {
    for_each = local.results_look_statements
    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = statement.value.resources
    }
  }

  # It cannot be limited to some metrics.
  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html
  statement {
    sid       = "ReadMetrics"
    actions   = ["cloudwatch:GetMetricData"]
    resources = ["*"]
  }

  statement {
    sid       = "ReadLogs"
    actions   = ["logs:FilterLogEvents"]
    resources = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${local.log_group}:*"]
  }

  dynamic "statement" {
    for_each = local.own_key
    content {
      sid       = "DecryptMessages"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

locals {
  own_key = var.kms_key_arn == "" ? [] : [var.kms_key_arn]

  policies = {
    producer = data.aws_iam_policy_document.producer.json
    worker   = data.aws_iam_policy_document.worker.json
    operator = data.aws_iam_policy_document.operator.json
  }
}

resource "aws_iam_policy" "this" {
  for_each = local.policies

  name        = "${local.name}-${each.key}"
  description = "${title(each.key)} of ${local.name}"
  policy      = each.value
}
