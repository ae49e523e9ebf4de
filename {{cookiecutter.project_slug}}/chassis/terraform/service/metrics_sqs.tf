# Metrics of the queues, which SQS publishes, and their alarms.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html

locals {
  sqs_metrics = {
    visible   = { name = "ApproximateNumberOfMessagesVisible", stat = "Maximum" }
    in_flight = { name = "ApproximateNumberOfMessagesNotVisible", stat = "Maximum" }
    delayed   = { name = "ApproximateNumberOfMessagesDelayed", stat = "Maximum" }
    received  = { name = "NumberOfMessagesReceived", stat = "Sum" }
    empty     = { name = "NumberOfEmptyReceives", stat = "Sum" }
  }
  queue_metrics = {
    for name, queue in local.queues : name => {
      for id, metric in local.sqs_metrics : id => {
        namespace  = "AWS/SQS"
        name       = metric.name
        dimensions = { QueueName = queue.queue_name }
        stat       = metric.stat
      }
    }
  }

  # No metric counts consumers. A worker with free processes polls all the time, and a busy one has
  # messages in flight. A queue with neither has no worker.
  nobody_works = {
    says       = "Messages are waiting in %s and it has no consumers."
    label      = "Messages waiting, no consumers"
    expression = "IF(visible > 0 AND FILL(received, 0) + FILL(empty, 0) + FILL(in_flight, 0) == 0, 1, 0)"
    metrics    = ["visible", "received", "empty", "in_flight"]
    if_silent  = "notBreaching"
  }
  nothing_left = {
    says       = "no messages are waiting, in flight or delayed"
    label      = "Messages waiting, in flight or delayed"
    expression = "visible + in_flight + delayed"
    metrics    = ["visible", "in_flight", "delayed"]
  }

  alarms = merge([
    for name, queue in local.queues : {
      "${name}-dead-letters" = {
        section     = "dead-letters"
        description = "There are messages in the dead-letter queue of ${name}."
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = queue.dead_letter_name }
        statistic   = "Maximum"
        threshold   = 0
        minutes     = 1
      }
      # The age includes the time in flight, so the threshold adds one whole delivery, and a minute
      # of overhead.
      "${name}-age" = {
        section     = "age"
        description = "The oldest message in ${name} is older than the acceptable latency."
        namespace   = "AWS/SQS"
        metric      = "ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = queue.queue_name }
        statistic   = "Maximum"
        threshold   = queue.acceptable_latency_seconds + max(queue.visibility_timeout_seconds, queue.max_countdown_seconds + queue.hard_limit_seconds + 60)
        minutes     = 5
      }
      "${name}-backlog" = {
        section     = "backlog"
        description = "The backlog of ${name} is more than workers_max workers can clear within the acceptable latency."
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = queue.queue_name }
        statistic   = "Maximum"
        threshold   = queue.backlog_per_worker * queue.workers_max
        minutes     = 15
      }
      # Three times the rate at which workers_max workers poll an empty queue.
      "${name}-empty-receives" = {
        section     = "empty-receives"
        description = "${name} is polled far more often than long polling explains; every request is charged."
        namespace   = "AWS/SQS"
        metric      = "NumberOfEmptyReceives"
        dimensions  = { QueueName = queue.queue_name }
        statistic   = "Sum"
        threshold   = ceil(3 * queue.workers_max * 60 / (local.contract.wait_time_seconds + local.contract.polling_interval_seconds))
        minutes     = 15
      }
    }
  ]...)
  broker_alarm_arns = []

  charts = [
    { title = "Waiting messages", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "Age of the oldest message (seconds)", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
    local.workers_chart,
    { title = "Completed per minute", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "NumberOfMessagesDeleted", "QueueName", queue.queue_name, { label = name, stat = "Sum" }]
    ] },
    { title = "Dead-letter messages", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue.dead_letter_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "In flight, including messages that wait for a retry", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
  ]
}
