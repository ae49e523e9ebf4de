# Workers follow the backlog per worker, not the depth of the queue: a number that falls when
# workers are added is the only kind that target tracking can hold.
# https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-target-tracking-metric-math.html

locals {
  # Queue by queue, what metric math calls by these names.
  metrics = {
    for name, metrics in local.queue_metrics : name => merge(metrics, {
      running = merge(local.running_workers_metrics[name], { stat = "Average" })
    })
  }

  # Messages that wait, for each worker there is; no worker counts as one.
  backlog_per_worker_expression = "visible / IF(FILL(running, 0) < 1, 1, FILL(running, 0))"

  # A queue whose workers_min is 0 sleeps when it is empty. Target tracking can neither wake it, as
  # it multiplies what is there, nor see that the last worker is still busy.
  sleeping_queues = { for name, queue in local.queues : name => queue if queue.workers_min == 0 && var.image_tag != "" }
}

resource "aws_cloudwatch_metric_alarm" "wake" {
  for_each = local.sleeping_queues

  alarm_name          = "${local.name}-${each.key}-wake"
  alarm_description   = "Not for people: messages wait and nobody works, so a worker is started."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.wake_policy_arns[each.key]]

  metric_query {
    id          = "asleep"
    label       = "Messages wait and nobody works"
    expression  = local.nobody_works.expression
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { for id in local.nobody_works.metrics : id => local.metrics[each.key][id] }
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

resource "aws_cloudwatch_metric_alarm" "sleep" {
  for_each = local.sleeping_queues

  alarm_name          = "${local.name}-${each.key}-sleep"
  alarm_description   = "Not for people: ${local.nothing_left.says}, so no worker is needed."
  comparison_operator = "LessThanOrEqualToThreshold"
  threshold           = 0
  evaluation_periods  = 10
  # A queue that nobody uses is not measured; then there is nothing to stop either.
  treat_missing_data = "notBreaching"
  alarm_actions      = [local.sleep_policy_arns[each.key]]

  metric_query {
    id          = "all"
    label       = local.nothing_left.label
    expression  = local.nothing_left.expression
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { for id in local.nothing_left.metrics : id => local.metrics[each.key][id] }
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
