# Three policies: for producers, workers and operators.

locals {
  statements = {
    producer = merge(local.broker_producer_statements, local.results_read_statements)
    worker   = merge(local.broker_worker_statements, local.results_worker_statements)
    operator = merge(local.broker_operator_statements, local.results_look_statements, {
      # This action cannot be limited to some metrics.
      # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html
      ReadMetrics = { actions = ["cloudwatch:GetMetricData"], resources = ["*"] }
      ReadLogs = {
        actions   = ["logs:FilterLogEvents", "logs:StartQuery"]
        resources = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${local.log_group}:*"]
      }
      # Of queries whose random ids they know. These actions cannot be limited to a log group.
      # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatchlogs.html
      ReadQueries = {
        actions    = ["logs:GetQueryResults", "logs:StopQuery"]
        resources  = ["*"]
        conditions = { "aws:RequestedRegion" = local.region }
      }
    })
  }
}

data "aws_iam_policy_document" "this" {
  for_each = local.statements

  source_policy_documents = {
    producer = []
    worker   = compact([var.task_policy_json])
    operator = [data.aws_iam_policy_document.look_at_workers.json]
  }[each.key]

  dynamic "statement" {
    for_each = each.value
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
    for_each = local.own_key[*]
    content {
      sid       = "UseOwnKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_policy" "this" {
  for_each = data.aws_iam_policy_document.this

  name        = "${local.global_name}-${each.key}"
  description = "${title(each.key)} of ${local.name}"
  policy      = each.value.json

  # A name that changes must not leave running workers, or producers elsewhere, without permissions.
  lifecycle {
    create_before_destroy = true
  }
}
