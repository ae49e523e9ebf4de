# What Amazon MQ tells of broker and queues, what it means, and when it alarms.
# https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-logging-monitoring.html

locals {
  queue_metrics = {
    for name, queue in local.queues : name => {
      for id, metric in {
        visible   = "MessageReadyCount"
        in_flight = "MessageUnacknowledgedCount"
        consumers = "ConsumerCount"
        } : id => {
        namespace  = "AWS/AmazonMQ"
        name       = metric
        dimensions = { Broker = local.name, VirtualHost = "/", Queue = queue.queue_name }
        stat       = "Maximum"
      }
    }
  }

  nobody_works = {
    says       = "nobody takes them"
    expression = "IF(visible > 0 AND FILL(consumers, 0) == 0, 1, 0)"
    metrics    = ["visible", "consumers"]
  }
  # What is delayed waits in queues of Celery's, and wakes this one when it arrives.
  nothing_left = {
    says       = "no message waits or is in work"
    label      = "Messages that wait or are in work"
    expression = "visible + in_flight"
    metrics    = ["visible", "in_flight"]
  }

  # No metric tells how old a message is.
  alarms = merge({
    broker-cpu = {
      section     = "broker-cpu"
      description = "The broker's processors are at their limit."
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
        description = "Messages lie in the dead-letter queue of ${name}."
        namespace   = "AWS/AmazonMQ"
        metric      = "MessageReadyCount"
        dimensions  = { Broker = local.name, VirtualHost = "/", Queue = queue.dead_letter_name }
        statistic   = "Maximum"
        threshold   = 0
        minutes     = 1
      }
      "${name}-backlog" = {
        section     = "backlog"
        description = "More waits in ${name} than all workers it may have can clear within the acceptable latency."
        namespace   = "AWS/AmazonMQ"
        metric      = "MessageReadyCount"
        dimensions  = { Broker = local.name, VirtualHost = "/", Queue = queue.queue_name }
        statistic   = "Maximum"
        threshold   = queue.backlog_per_worker * queue.workers_max
        minutes     = 15
      }
    }
  ]...)

  # In percent, of the machine that is worst off; at 100, nobody can send any more.
  broker_limits = {
    memory = {
      description = "The broker's memory is nearly as full as it may be."
      expression  = "100 * memory_used / memory_limit"
      metrics = {
        memory_used  = { name = "RabbitMQMemUsed", stat = "Maximum" }
        memory_limit = { name = "RabbitMQMemLimit", stat = "Minimum" }
      }
    }
    disk = {
      description = "The broker's disk has hardly more room left than it must have."
      expression  = "100 * disk_limit / disk_free"
      metrics = {
        disk_limit = { name = "RabbitMQDiskFreeLimit", stat = "Maximum" }
        disk_free  = { name = "RabbitMQDiskFree", stat = "Minimum" }
      }
    }
  }
  broker_alarm_arns = values(aws_cloudwatch_metric_alarm.broker)[*].arn

  charts = [
    { title = "Waiting messages", metrics = [
      for name, queue in local.queues : ["AWS/AmazonMQ", "MessageReadyCount", "Broker", local.name, "VirtualHost", "/", "Queue", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "In work", metrics = [
      for name, queue in local.queues : ["AWS/AmazonMQ", "MessageUnacknowledgedCount", "Broker", local.name, "VirtualHost", "/", "Queue", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
    local.workers_chart,
    { title = "Sent and done per second", metrics = [
      for label, metric in { sent = "PublishRate", done = "AckRate" } : ["AWS/AmazonMQ", metric, "Broker", local.name, { label = label, stat = "Average" }]
    ] },
    { title = "Dead letters", metrics = [
      for name, queue in local.queues : ["AWS/AmazonMQ", "MessageReadyCount", "Broker", local.name, "VirtualHost", "/", "Queue", queue.dead_letter_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "Load of the broker, in percent", metrics = concat(
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
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

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
