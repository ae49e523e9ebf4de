# Scaling follows the backlog per worker and not the queue depth: target tracking needs a metric
# that decreases when workers are added.
# https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-target-tracking-metric-math.html

locals {
  # Without an image no worker can start.
  capacity = {
    for name, worker in merge(local.workers, local.beat) : name => {
      min = var.image_tag == "" ? 0 : worker.min
      max = var.image_tag == "" ? 0 : worker.max
    }
  }

  # Workers all of whose queues have metrics, and those with one such queue at least, by whose
  # backlog they are scaled.
  watched_workers = { for name, worker in local.workers : name => worker if length(local.watched_queues[name]) == length(worker.queues) }
  scaled_workers  = { for name, worker in local.workers : name => worker if length(local.watched_queues[name]) > 0 }

  # For each worker, the metrics by their ids in metric math: `visible0` is `visible` of its first
  # queue, the most urgent one of those that have metrics.
  metrics = {
    for name, worker in local.workers : name => merge(
      { running = merge(local.running_workers_metrics[name], { stat = "Average" }) },
      [for index, queue in local.watched_queues[name] : { for id, metric in local.queue_metrics[queue] : "${id}${index}" => metric }]...
    )
  }

  # For each worker, the number of messages in each queue. SQS publishes no metrics of a queue that
  # was unused for six hours, and a sum without one of its values has no value: filled with zero, a
  # quiet queue does not hide a busy one of the same worker. If the newest minute is only late, it
  # repeats the one before: with zero in its place, an alarm could stay in one state for good.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html (FILL)
  waiting = {
    for name, worker in local.workers : name => [
      for index, queue in local.watched_queues[name] : length(local.watched_queues[name]) == 1 ? "visible0" : "FILL(FILL(visible${index}, REPEAT), 0)"
    ]
  }

  # Waiting messages per running worker, as a share of those that it clears in time: of several
  # queues, each has its own acceptable latency. As in the examples of AWS, the divisor is not
  # filled: for a minute without the number of workers there is no value, and target tracking does
  # not scale without data. Filled with a number, a late minute would look like a lack of workers.
  # Nor is there a value while no worker runs, because more of them would not run either.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-autoscaling-targettracking.html
  load = {
    for name, worker in local.scaled_workers : name => {
      expression = "IF(running > 0, (${join(" + ", [
        for index, queue in local.watched_queues[name] : "${local.waiting[name][index]} / ${local.queues[queue].backlog_per_worker}"
      ])}) / running)"
      metrics = concat([for index, queue in local.watched_queues[name] : "visible${index}"], ["running"])
    }
  }

  # A worker with a `min` of 0 scales to zero when its queues are empty. Target tracking can do
  # neither step: it multiplies the current capacity, so it cannot scale from zero, and it does not
  # see that the last worker is still busy.
  to_zero_workers = { for name, worker in local.workers : name => worker if worker.min == 0 && var.image_tag != "" }

  # Messages are waiting and no worker runs. Polls and messages in flight are no substitute: if
  # these are late, a busy worker would get another one. A late number of workers is repeated, and
  # one that is missing altogether is zero, because Container Insights may have no data of a service
  # without tasks.
  from_zero = {
    for name, worker in local.to_zero_workers : name => {
      expression = "IF(${join(" + ", local.waiting[name])} > 0 AND FILL(FILL(running, REPEAT), 0) == 0, 1, 0)"
      metrics    = concat([for index, queue in worker.queues : "visible${index}"], ["running"])
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "from_zero" {
  for_each = local.to_zero_workers

  alarm_name          = "${local.name}-${each.key}-scale-from-zero"
  alarm_description   = "Autoscaling trigger; no action needed. Messages are waiting and no worker runs: scale from zero."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.from_zero_policy_arns[each.key]]

  metric_query {
    id          = "no_workers"
    label       = "Messages waiting, no workers"
    expression  = local.from_zero[each.key].expression
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { for id in local.from_zero[each.key].metrics : id => local.metrics[each.key][id] }
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

resource "aws_cloudwatch_metric_alarm" "to_zero" {
  for_each = local.to_zero_workers

  alarm_name          = "${local.name}-${each.key}-scale-to-zero"
  alarm_description   = "Autoscaling trigger; no action needed. In ${join(" and ", each.value.queues)}, ${local.nothing_left[each.key].says}: scale to zero."
  comparison_operator = "LessThanOrEqualToThreshold"
  threshold           = 0
  evaluation_periods  = 10
  # Idle queues have no metrics, and no workers to stop.
  treat_missing_data = "notBreaching"
  alarm_actions      = [local.to_zero_policy_arns[each.key]]

  metric_query {
    id          = "all"
    label       = local.nothing_left[each.key].label
    expression  = local.nothing_left[each.key].expression
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { for id in local.nothing_left[each.key].metrics : id => local.metrics[each.key][id] }
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

# Names of chassis 1.
moved {
  from = aws_cloudwatch_metric_alarm.wake
  to   = aws_cloudwatch_metric_alarm.from_zero
}
moved {
  from = aws_cloudwatch_metric_alarm.sleep
  to   = aws_cloudwatch_metric_alarm.to_zero
}
