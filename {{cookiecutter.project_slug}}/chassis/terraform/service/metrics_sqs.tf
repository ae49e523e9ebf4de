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
  queues_with_metrics = { for name, queue in local.queues : name => queue if queue.has_metrics }
  queue_metrics = {
    for name, queue in local.queues_with_metrics : name => {
      for id, metric in local.sqs_metrics : id => {
        namespace  = "AWS/SQS"
        name       = metric.name
        dimensions = { QueueName = queue.queue_name }
        stat       = metric.stat
      }
    }
  }

  # By worker. No metric counts consumers. A worker with free processes polls all the time, and a
  # busy one has messages in flight. Queues with neither have no worker. All queues of a worker
  # count together: while it is busy with urgent messages, it does not poll the less urgent queues.
  # A worker that may be busy with a queue without metrics has no such alarm.
  #
  # An alarm takes ten metrics at most. So only the most urgent queue shows whether a worker polls:
  # it polls that one before any other. With five queues there is no room for this, and only
  # messages in flight show that there is a worker.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-limits.html
  signs_of_work = {
    for name, worker in local.watched_workers : name => concat(
      length(worker.queues) <= 4 ? ["received0", "empty0"] : [],
      [for index, queue in worker.queues : "in_flight${index}"],
    )
  }
  no_consumers = {
    for name, worker in local.watched_workers : name => {
      says       = "Messages are waiting in ${join(" or ", worker.queues)}, and there are no consumers."
      label      = "Messages waiting, no consumers"
      expression = "IF(${join(" + ", local.waiting[name])} > 0 AND ${join(" + ", [for id in local.signs_of_work[name] : "FILL(${id}, 0)"])} == 0, 1, 0)"
      metrics    = concat([for index, queue in worker.queues : "visible${index}"], local.signs_of_work[name])
      if_silent  = "notBreaching"
    }
  }
  # By worker. SQS reports visible messages of every queue that is in use, as all queues of a running
  # worker are; in-flight and delayed ones only where there are some. So the first are not filled:
  # without data no worker is stopped. Ten metrics at most leave no room for the delayed messages of
  # more than three queues; when their delay is over, they start a worker again.
  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
  left = {
    for name, worker in local.watched_workers : name => flatten([
      for id in length(worker.queues) <= 3 ? ["visible", "in_flight", "delayed"] : ["visible", "in_flight"] : [
        for index, queue in worker.queues : "${id}${index}"
      ]
    ])
  }
  nothing_left = {
    for name, worker in local.watched_workers : name => {
      says       = "no messages are waiting, in flight or delayed"
      label      = "Messages waiting, in flight or delayed"
      expression = join(" + ", [for id in local.left[name] : startswith(id, "visible") ? id : "FILL(${id}, 0)"])
      metrics    = local.left[name]
    }
  }

  poll_seconds = {
    for name, queue in local.queues : name => (
      name == reverse(queue.worker.queues)[0] ? local.contract.wait_time_seconds : min(1, local.contract.wait_time_seconds)
    )
  }

  alarms = merge(local.scheduler_alarms, [
    for name, queue in local.queues_with_metrics : {
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
        description = "The backlog of ${name} is more than the maximum number of workers can clear within the acceptable latency."
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = queue.queue_name }
        statistic   = "Maximum"
        threshold   = queue.backlog_per_worker * queue.worker.max
        minutes     = 15
      }
      # Three times the rate at which the maximum number of workers polls an empty queue. A worker
      # with several queues polls all but its least urgent one more often: while it is busy with
      # less urgent messages, it still looks for urgent ones once a second, by polls of one second.
      "${name}-empty-receives" = {
        section     = "empty-receives"
        description = "${name} is polled far more often than long polling explains; every request is charged."
        namespace   = "AWS/SQS"
        metric      = "NumberOfEmptyReceives"
        dimensions  = { QueueName = queue.queue_name }
        statistic   = "Sum"
        threshold   = ceil(3 * queue.worker.max * 60 / (local.poll_seconds[name] + local.contract.polling_interval_seconds))
        minutes     = 15
      }
    }
  ]...)
  broker_alarm_arns = []

  charts = [for chart in [
    { title = "Waiting messages", metrics = [
      for name, queue in local.queues_with_metrics : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "Age of the oldest message (seconds)", metrics = [
      for name, queue in local.queues_with_metrics : ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
    local.workers_chart,
    { title = "Completed per minute", metrics = [
      for name, queue in local.queues_with_metrics : ["AWS/SQS", "NumberOfMessagesDeleted", "QueueName", queue.queue_name, { label = name, stat = "Sum" }]
    ] },
    { title = "Dead-letter messages", metrics = [
      for name, queue in local.queues_with_metrics : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", queue.dead_letter_name, { label = name, stat = "Maximum" }]
    ] },
    { title = "In flight, including messages that wait for a retry", metrics = [
      for name, queue in local.queues_with_metrics : ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", queue.queue_name, { label = name, stat = "Maximum" }]
    ] },
  ] : chart if length(chart.metrics) > 0]
}
