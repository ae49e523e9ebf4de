# The runbook has a section for each alarm. Thresholds are derived from the contract; see also
# local.alarms.

locals {
  alarm_actions = concat([aws_sns_topic.alarms.arn], var.alarm_actions)
}

resource "aws_cloudwatch_metric_alarm" "queue" {
  for_each = local.alarms

  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = "${each.value.description} ${var.runbook_url}#${each.value.section}"
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  # An idle queue has no metrics.
  treat_missing_data = "notBreaching"
  alarm_actions      = local.alarm_actions
  ok_actions         = local.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "no_consumers" {
  for_each = local.watched_workers

  alarm_name          = "${local.name}-${each.key}-no-consumers"
  alarm_description   = "${local.no_consumers[each.key].says} ${var.runbook_url}#no-consumers"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 10
  treat_missing_data  = local.no_consumers[each.key].if_silent
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions

  metric_query {
    id          = "no_consumers"
    label       = local.no_consumers[each.key].label
    expression  = local.no_consumers[each.key].expression
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { for id in local.no_consumers[each.key].metrics : id => local.metrics[each.key][id] }
    content {
      id = metric_query.key
      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        dimensions  = metric_query.value.dimensions
        stat        = metric_query.value.stat
        period      = 60
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "utilization" {
  for_each = local.utilization_metrics

  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = "CPU or memory utilization of the workers is above 90%. ${var.runbook_url}#utilization"
  namespace           = each.value.namespace
  metric_name         = each.value.name
  dimensions          = each.value.dimensions
  statistic           = "Average"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 90
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
}

resource "aws_sns_topic" "alarms" {
  name = "${local.name}-alarms"
  # CloudWatch cannot use the AWS managed key for SNS: notifications would be lost without an
  # error.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html
  kms_master_key_id = local.own_key
}

data "aws_iam_policy_document" "alarms" {
  statement {
    sid       = "Publish"
    actions   = ["sns:Publish"]
    resources = ["arn:${local.partition}:sns:${local.region}:${local.account}:${local.name}-alarms"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(local.contract.alarm_email == "" ? [] : [local.contract.alarm_email])

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_budgets_budget" "monthly" {
  for_each = var.monthly_budget_usd > 0 ? { this = var.monthly_budget_usd } : {}

  name         = local.global_name
  budget_type  = "COST"
  limit_amount = tostring(each.value)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:Service$%s", local.contract.service)]
  }
  notification {
    comparison_operator       = "GREATER_THAN"
    threshold                 = 100
    threshold_type            = "PERCENTAGE"
    notification_type         = "FORECASTED"
    subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
  }
}

# Names of chassis 1.
moved {
  from = aws_cloudwatch_metric_alarm.nobody_works
  to   = aws_cloudwatch_metric_alarm.no_consumers
}
