# Three policies, for whoever sends, works and is on call.

data "aws_iam_policy_document" "producer" {
  dynamic "statement" {
    for_each = merge(local.broker_producer_statements, local.results_read_statements)
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
  dynamic "statement" {
    for_each = merge(local.broker_worker_statements, local.results_worker_statements)
    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = statement.value.resources

      dynamic "condition" {
        for_each = try(statement.value.conditions, {})
        content {
          test     = "StringEquals"
          variable = condition.key
          values   = [condition.value]
        }
      }
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

  dynamic "statement" {
    for_each = merge(local.broker_operator_statements, local.results_look_statements)
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
