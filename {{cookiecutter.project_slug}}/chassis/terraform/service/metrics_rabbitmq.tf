# Metrics of the broker (published by Amazon MQ) and of the queues (published by the workers), and
# their alarms. Amazon MQ publishes no metrics of single queues for RabbitMQ 4; see reporting.py.
# https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-logging-monitoring.html

locals {
  queue_metrics = {
    for name, queue in local.queues : name => {
      for id, metric in {
        visible   = "MessagesWaiting"
        consumers = "Workers"
        } : id => {
        namespace  = local.name
        name       = metric
        dimensions = { Queue = queue.queue_name }
        stat       = "Maximum"
      }
    }
  }

  # By worker. A worker consumes from all its queues all the time, so one without consumers is
  # enough for an alarm.
  no_consumers = {
    for name, worker in local.workers : name => {
      says       = "No consumers on ${join(" or ", worker.queues)}."
      label      = "No consumers"
      expression = "IF(${join(" OR ", [for index, queue in worker.queues : "FILL(consumers${index}, 0) == 0"])}, 1, 0)"
      metrics    = [for index, queue in worker.queues : "consumers${index}"]
      # Workers publish the metric; without a worker there is no data.
      if_silent = "breaching"
    }
  }
  # No worker scales to zero: workers publish the metric that would start the first one.
  nothing_left = {
    for name, worker in local.workers : name => {
      says       = "no messages are waiting"
      label      = "Waiting messages"
      expression = join(" + ", local.waiting[name])
      metrics    = [for index, queue in worker.queues : "visible${index}"]
    }
  }

  # There is no metric for the age of messages.
  alarms = merge({
    broker-cpu = {
      section     = "broker-cpu"
      description = "The broker's CPU utilization is above 80%."
      namespace   = "AWS/AmazonMQ"
      metric      = "SystemCpuUtilization"
      dimensions  = { Broker = local.name }
      statistic   = "Maximum"
      threshold   = 80
      minutes     = 15
    }
    }, [
    for name, queue in local.queues : {
      "${name}-dead-letters" = {
        section     = "dead-letters"
        description = "There are messages in the dead-letter queue of ${name}."
        namespace   = local.name
        metric      = "MessagesWaiting"
        dimensions  = { Queue = queue.dead_letter_name }
        statistic   = "Maximum"
        threshold   = 0
        minutes     = 1
      }
      "${name}-backlog" = {
        section     = "backlog"
        description = "The backlog of ${name} is more than the maximum number of workers can clear within the acceptable latency."
        namespace   = local.name
        metric      = "MessagesWaiting"
        dimensions  = { Queue = queue.queue_name }
        statistic   = "Maximum"
        threshold   = queue.backlog_per_worker * queue.worker.max
        minutes     = 15
      }
    }
  ]...)

  # Percentages, of the node with the highest; at 100, RabbitMQ blocks all producers.
  broker_limits = {
    memory = {
      description = "The broker's memory use is close to its limit."
      expression  = "100 * memory_used / memory_limit"
      metrics = {
        memory_used  = { name = "RabbitMQMemUsed", stat = "Maximum" }
        memory_limit = { name = "RabbitMQMemLimit", stat = "Minimum" }
      }
    }
    disk = {
      description = "The broker's free disk space is close to its minimum."
      expression  = "100 * disk_limit / disk_free"
      metrics = {
        disk_limit = { name = "RabbitMQDiskFreeLimit", stat = "Maximum" }
        disk_free  = { name = "RabbitMQDiskFree", stat = "Minimum" }
      }
    }
  }
  broker_alarm_arns = concat(values(aws_cloudwatch_metric_alarm.broker)[*].arn, values(aws_cloudwatch_metric_alarm.beat_gone)[*].arn)

  charts = [
    { title = "Waiting messages", metrics = [
      for name, queue in local.queues : [local.name, "MessagesWaiting", "Queue", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "In flight, all queues", metrics = [
      ["AWS/AmazonMQ", "MessageUnacknowledgedCount", "Broker", local.name, { label = "in flight", stat = "Maximum" }]
    ] },
    local.workers_chart,
    { title = "Sent and completed per second", metrics = [
      for label, metric in { sent = "PublishRate", completed = "AckRate" } : ["AWS/AmazonMQ", metric, "Broker", local.name, { label = label, stat = "Average" }]
    ] },
    { title = "Dead-letter messages", metrics = [
      for name, queue in local.queues : [local.name, "MessagesWaiting", "Queue", queue.dead_letter_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "Broker utilization (percent)", metrics = concat(
      [["AWS/AmazonMQ", "SystemCpuUtilization", "Broker", local.name, { label = "cpu", stat = "Maximum" }]],
      [for name, limit in local.broker_limits : [{ label = name, expression = limit.expression }]],
      [
        for id, metric in merge(values(local.broker_limits)[*].metrics...) :
        ["AWS/AmazonMQ", metric.name, "Broker", local.name, { id = id, stat = metric.stat, visible = false }]
      ],
    ) },
  ]
}

resource "aws_cloudwatch_metric_alarm" "broker" {
  for_each = local.broker_limits

  alarm_name          = "${local.name}-broker-${each.key}"
  alarm_description   = "${each.value.description} ${var.runbook_url}#broker-${each.key}"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 80
  evaluation_periods  = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions

  metric_query {
    id          = "percent"
    label       = "Percent of the limit"
    expression  = each.value.expression
    return_data = true
  }
  dynamic "metric_query" {
    for_each = each.value.metrics
    content {
      id = metric_query.key
      metric {
        namespace   = "AWS/AmazonMQ"
        metric_name = metric_query.value.name
        dimensions  = { Broker = local.name }
        stat        = metric_query.value.stat
        period      = 60
      }
    }
  }
}
