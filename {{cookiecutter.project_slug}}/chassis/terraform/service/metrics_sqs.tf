# What SQS tells of the queues, what it means, and when it alarms.
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

  # No metric counts consumers. But a worker with room polls all the time, and one without room has
  # messages in flight.
  nobody_works = {
    says       = "Messages wait in %s and nobody polls."
    expression = "IF(visible > 0 AND FILL(received, 0) + FILL(empty, 0) + FILL(in_flight, 0) == 0, 1, 0)"
    metrics    = ["visible", "received", "empty", "in_flight"]
    if_silent  = "notBreaching"
  }
  nothing_left = {
    says       = "no message waits, is in work or is delayed"
    label      = "Messages that wait, are in work or are delayed"
    expression = "visible + in_flight + delayed"
    metrics    = ["visible", "in_flight", "delayed"]
  }

  alarms = merge([
    for name, queue in local.queues : {
      "${name}-dead-letters" = {
        section     = "dead-letters"
        description = "Messages lie in the dead-letter queue of ${name}."
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = queue.dead_letter_name }
        statistic   = "Maximum"
        threshold   = 0
        minutes     = 1
      }
      # A message counts while it is in work, too; hence one whole delivery, with a minute for what is around the task.
      "${name}-age" = {
        section     = "age"
        description = "A message of ${name} waits longer than is acceptable."
        namespace   = "AWS/SQS"
        metric      = "ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = queue.queue_name }
        statistic   = "Maximum"
        threshold   = queue.acceptable_latency_seconds + max(queue.visibility_timeout_seconds, queue.max_countdown_seconds + queue.hard_limit_seconds + 60)
        minutes     = 5
      }
      "${name}-backlog" = {
        section     = "backlog"
        description = "More waits in ${name} than all workers it may have can clear within the acceptable latency."
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = queue.queue_name }
        statistic   = "Maximum"
        threshold   = queue.backlog_per_worker * queue.workers_max
        minutes     = 15
      }
      # Three times what all workers would ask for if there were never a message.
      "${name}-empty-receives" = {
        section     = "empty-receives"
        description = "${name} is polled far more often than long polls explain, and every poll costs."
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
    { title = "Age of the oldest message, in seconds", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
    local.workers_chart,
    { title = "Done per minute", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "NumberOfMessagesDeleted", "QueueName", queue.queue_name, { label = name, stat = "Sum" }]
    ] },
    { title = "Dead letters", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue.dead_letter_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "In work, or hidden until they are tried again", metrics = [
      for name, queue in local.queues : ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
  ]
}
