# Scaling follows the backlog per worker and not the queue depth: target tracking needs a metric
# that decreases when workers are added.
# https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-target-tracking-metric-math.html

locals {
  # For each queue, the metrics by their ids in metric math.
  metrics = {
    for name, metrics in local.queue_metrics : name => merge(metrics, {
      running = merge(local.running_workers_metrics[name], { stat = "Average" })
    })
  }

  # Waiting messages per running worker; divides by at least one.
  backlog_per_worker_expression = "visible / IF(FILL(running, 0) < 1, 1, FILL(running, 0))"

  # A queue with workers_min = 0 scales to zero when it is empty. Target tracking can do neither
  # step: it multiplies the current capacity, so it cannot scale from zero, and it does not see
  # that the last worker is still busy.
  sleeping_queues = { for name, queue in local.queues : name => queue if queue.workers_min == 0 && var.image_tag != "" }
}

resource "aws_cloudwatch_metric_alarm" "wake" {
  for_each = local.sleeping_queues

  alarm_name          = "${local.name}-${each.key}-wake"
  alarm_description   = "Autoscaling trigger; no action needed. Messages are waiting and there are no consumers: scale from zero."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.wake_policy_arns[each.key]]

  metric_query {
    id          = "asleep"
    label       = local.nobody_works.label
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
  alarm_description   = "Autoscaling trigger; no action needed. In ${each.key}, ${local.nothing_left.says}: scale to zero."
  comparison_operator = "LessThanOrEqualToThreshold"
  threshold           = 0
  evaluation_periods  = 10
  # An idle queue has no metrics, and no workers to stop.
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
