# Metrics of tasks, if the contract has `task_metrics`: taken by CloudWatch Logs from the line that a worker
# logs at the end of each attempt. They cost the worker nothing, and the logs no byte. docs/outcomes.md
# says what each counts. What the patterns can contain, and what is charged:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntaxForMetricFilters.html
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutMetricFilter.html

locals {
  has_task_metrics = try(local.contract.task_metrics, false)

  # Tasks may log fields of the same names.
  of_attempt = "$.logger = \"celery_aws.*\" && $.outcome = *"
  failed     = "($.outcome = \"retrying\" || $.outcome = \"dead_lettered\" || $.outcome = \"rejected\")"
  # A pattern must name the field from which the value is taken.
  attempt_durations = { matches = "$.outcome != \"interrupted\" && $.outcome != \"revoked\" && $.duration_seconds = *", value = "$.duration_seconds" }

  # By metric. An event that lacks a dimension's field is not counted. Those of tasks are for the
  # dashboard, which finds them by SEARCH; alarms cannot search, so they have metrics of queues.
  metrics_of_tasks = {
    Duration     = local.attempt_durations
    Age          = { matches = "$.age_seconds = *", value = "$.age_seconds" }
    Succeeded    = { matches = "$.outcome = \"succeeded\"" }
    Retrying     = { matches = "$.outcome = \"retrying\"" }
    DeadLettered = { matches = "($.outcome = \"dead_lettered\" || $.outcome = \"rejected\")" }
  }
  metrics_of_queues = {
    Duration = local.attempt_durations
    Failed   = { matches = local.failed }
  }
  task_filters = local.has_task_metrics ? merge(
    { for name, metric in local.metrics_of_tasks : "tasks-${name}" => merge({ name = name, dimensions = { Queue = "$.queue", Task = "$.task" }, value = "1" }, metric) },
    { for name, metric in local.metrics_of_queues : "queues-${name}" => merge({ name = name, dimensions = { Queue = "$.queue" }, value = "1" }, metric) },
  ) : {}

  # Celery's name of a queue, which workers log.
  watched_tasks = { for name, queue in local.queues : name => "${name}${try(queue.fifo, false) ? ".fifo" : ""}" if local.has_task_metrics }

  task_charts = [for chart in [
    { title = "Started attempts per minute, by task", metric = "Age", stat = "SampleCount" },
    { title = "Succeeded per minute, by task", metric = "Succeeded", stat = "Sum" },
    { title = "Failed and retried per minute, by task", metric = "Retrying", stat = "Sum" },
    { title = "Dead-lettered per minute, by task", metric = "DeadLettered", stat = "Sum" },
    { title = "Duration by task (seconds, 90th percentile)", metric = "Duration", stat = "p90" },
    { title = "Age at start by task (seconds, 90th percentile)", metric = "Age", stat = "p90" },
    ] : {
    title = chart.title
    metrics = [[{
      expression = "SEARCH('{\"${local.name}\",Queue,Task} MetricName=\"${chart.metric}\"', '${chart.stat}', 60)"
      label      = "$${PROP('Dim.Task')} in $${PROP('Dim.Queue')}"
    }]]
  } if local.has_task_metrics]
  task_alarm_arns = concat(values(aws_cloudwatch_metric_alarm.failing_tasks)[*].arn, values(aws_cloudwatch_metric_alarm.slow_tasks)[*].arn)
}

resource "aws_cloudwatch_log_metric_filter" "tasks" {
  for_each = local.task_filters

  name           = each.key
  log_group_name = aws_cloudwatch_log_group.workers.name
  pattern        = "{ ${local.of_attempt} && ${each.value.matches} }"

  # No default value: it is not allowed with dimensions.
  metric_transformation {
    name       = each.value.name
    namespace  = local.name
    value      = each.value.value
    unit       = each.value.value == "1" ? "Count" : "Seconds"
    dimensions = each.value.dimensions
  }

  lifecycle {
    precondition {
      condition     = contains(["DEBUG", "INFO"], local.environment.LOG_LEVEL)
      error_message = "task_metrics in contract.json needs the workers' lines of level INFO; set log_level to INFO or DEBUG, or task_metrics to false."
    }
  }
}

# A few attempts say nothing of a ratio; tasks that fail for good also raise the dead-letter alarm.
resource "aws_cloudwatch_metric_alarm" "failing_tasks" {
  for_each = local.watched_tasks

  alarm_name          = "${local.name}-${each.key}-failing-tasks"
  alarm_description   = "More than 20% of the attempts at tasks of ${each.key} fail. ${var.runbook_url}#failing-tasks"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 20
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions

  metric_query {
    id          = "percent"
    label       = "Failed attempts (percent)"
    expression  = "IF(attempts >= 10, 100 * FILL(failed, 0) / attempts, 0)"
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { attempts = { name = "Duration", stat = "SampleCount" }, failed = { name = "Failed", stat = "Sum" } }
    content {
      id = metric_query.key
      metric {
        namespace   = local.name
        metric_name = metric_query.value.name
        dimensions  = { Queue = each.value }
        stat        = metric_query.value.stat
        period      = 300
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "slow_tasks" {
  for_each = local.watched_tasks

  alarm_name          = "${local.name}-${each.key}-slow-tasks"
  alarm_description   = "Tasks of ${each.key} take more than 90% of soft_limit_seconds. ${var.runbook_url}#slow-tasks"
  namespace           = local.name
  metric_name         = "Duration"
  dimensions          = { Queue = each.value }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0.9 * local.queues[each.key].soft_limit_seconds
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
}
