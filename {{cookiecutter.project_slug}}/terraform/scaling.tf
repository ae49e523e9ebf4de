# Workers follow the backlog per worker, not the depth of the queue: a number that falls when
# workers are added is the only kind that target tracking can hold.
# https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-target-tracking-metric-math.html

locals {
  sqs_metrics = {
    visible   = { name = "ApproximateNumberOfMessagesVisible", stat = "Maximum" }
    in_flight = { name = "ApproximateNumberOfMessagesNotVisible", stat = "Maximum" }
    delayed   = { name = "ApproximateNumberOfMessagesDelayed", stat = "Maximum" }
    received  = { name = "NumberOfMessagesReceived", stat = "Sum" }
    empty     = { name = "NumberOfEmptyReceives", stat = "Sum" }
  }

  # Queue by queue, what metric math below calls by these names.
  metrics = {
    for name, queue in local.queues : name => merge(
      {
        for id, metric in local.sqs_metrics : id => {
          namespace  = "AWS/SQS"
          name       = metric.name
          dimensions = { QueueName = queue.queue_name }
          stat       = metric.stat
        }
      },
      { running = merge(local.running_workers_metrics[name], { stat = "Average" }) },
    )
  }

  # Messages that wait, for each worker there is; no worker counts as one.
  backlog_per_worker_expression = "visible / IF(FILL(running, 0) < 1, 1, FILL(running, 0))"

  # No metric counts consumers. But a worker with room polls all the time, and one without room has
  # messages in flight.
  nobody_works_expression = "IF(visible > 0 AND FILL(received, 0) + FILL(empty, 0) + FILL(in_flight, 0) == 0, 1, 0)"

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
    expression  = local.nobody_works_expression
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { for id in ["visible", "received", "empty", "in_flight"] : id => local.metrics[each.key][id] }
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
  alarm_description   = "Not for people: no message waits, is in work or is delayed, so no worker is needed."
  comparison_operator = "LessThanOrEqualToThreshold"
  threshold           = 0
  evaluation_periods  = 10
  # SQS stops measuring a queue that nobody uses; then there is nothing to stop either.
  treat_missing_data = "notBreaching"
  alarm_actions      = [local.sleep_policy_arns[each.key]]

  metric_query {
    id          = "all"
    label       = "Messages that wait, are in work or are delayed"
    expression  = "visible + in_flight + delayed"
    return_data = true
  }
  dynamic "metric_query" {
    for_each = { for id in ["visible", "in_flight", "delayed"] : id => local.metrics[each.key][id] }
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
