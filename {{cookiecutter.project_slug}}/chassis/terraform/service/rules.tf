# The rules that protect messages: numbers that break one of them lose tasks or run them twice. And
# that the queues of workers exist, without which the plan could not be made.
# `make plan` checks all rules of a contract first, by celery_aws/contract/, which has the reasons.
# These stand here as well, in the same words, for whoever runs Terraform without make. Queues are
# checked with their defaults, so a wrong default is reported for each of them.

locals {
  on_sqs = local.contract.broker != "rabbitmq"

  # How long a message of a queue may wait in its worker behind the tasks of other queues.
  other_tasks_seconds = merge([for worker in local.effective_workers : {
    for queue in worker.queues : queue => (length(worker.queues) - 1) * max(0, [
      for other in local.effective_queues : other.hard_limit_seconds if contains(worker.queues, other.name)
    ]...)
  }]...)

  service_rules = [{
    field = "stop_timeout_seconds"
    holds = local.contract.soft_shutdown_seconds + 10 <= local.contract.stop_timeout_seconds
    says  = "must be at least soft_shutdown_seconds (${local.contract.soft_shutdown_seconds}) + 10"
    try   = local.contract.soft_shutdown_seconds + 10
  }]

  # A worker on SQS holds a task until it is due; RabbitMQ keeps it itself.
  held_seconds = { for queue in local.effective_queues : queue.name => queue.hard_limit_seconds + 60 + (local.on_sqs ? queue.max_countdown_seconds : 0) }
  heartbeat    = { for queue in local.effective_queues : queue.name => try(queue.heartbeat_seconds, 0) }
  says_waiting = { for name, seconds in local.other_tasks_seconds : name => "must also cover other_tasks_seconds (${seconds}), for which a message may wait in its worker behind other queues' tasks" }

  queue_rules = { for queue in local.effective_queues : queue.name => concat(
    [
      {
        field = "hard_limit_seconds"
        holds = queue.hard_limit_seconds > queue.soft_limit_seconds
        says  = "must be greater than soft_limit_seconds (${queue.soft_limit_seconds})"
        try   = queue.soft_limit_seconds + 60
      },
      {
        field = "visibility_timeout_seconds"
        holds = local.heartbeat[queue.name] > 0 || local.held_seconds[queue.name] <= queue.visibility_timeout_seconds
        says = (local.on_sqs
          ? "must be at least max_countdown_seconds (${queue.max_countdown_seconds}) + hard_limit_seconds (${queue.hard_limit_seconds}) + 60, or tasks run twice"
          : "must be at least hard_limit_seconds (${queue.hard_limit_seconds}) + 60, or messages of running tasks are redelivered"
        )
        try = local.held_seconds[queue.name]
      },
      {
        field = "visibility_timeout_seconds"
        holds = (
          local.other_tasks_seconds[queue.name] == 0 || local.heartbeat[queue.name] > 0 ||
          local.held_seconds[queue.name] + local.other_tasks_seconds[queue.name] <= queue.visibility_timeout_seconds
        )
        says = local.says_waiting[queue.name]
        try  = local.held_seconds[queue.name] + local.other_tasks_seconds[queue.name]
      },
    ],
    [for rule in [
      {
        field = "heartbeat_limit_seconds"
        holds = local.heartbeat[queue.name] == 0 || local.held_seconds[queue.name] <= try(queue.heartbeat_limit_seconds, 0)
        says  = "must be at least max_countdown_seconds (${queue.max_countdown_seconds}) + hard_limit_seconds (${queue.hard_limit_seconds}) + 60, or tasks run twice"
        try   = 43200
      },
      {
        field = "heartbeat_limit_seconds"
        holds = (
          local.other_tasks_seconds[queue.name] == 0 || local.heartbeat[queue.name] == 0 ||
          local.held_seconds[queue.name] + local.other_tasks_seconds[queue.name] <= try(queue.heartbeat_limit_seconds, 0)
        )
        says = local.says_waiting[queue.name]
        try  = 43200
      },
      {
        field = "visibility_timeout_seconds"
        holds = queue.visibility_timeout_seconds >= 3 * local.heartbeat[queue.name]
        says  = "must be at least 3 times heartbeat_seconds (${local.heartbeat[queue.name]}), so that one heartbeat may fail"
        try   = 3 * local.heartbeat[queue.name]
      },
      {
        field = "retention_seconds"
        holds = queue.visibility_timeout_seconds * queue.max_receive_count < queue.retention_seconds
        says  = "must be more than visibility_timeout_seconds (${queue.visibility_timeout_seconds}) times max_receive_count (${queue.max_receive_count}), or messages expire between attempts"
        try   = min(1209600, queue.visibility_timeout_seconds * queue.max_receive_count + 86400)
      },
      {
        field = "retention_seconds"
        holds = (
          queue.retention_seconds < local.contract.dead_letter_retention_seconds ||
          queue.retention_seconds == 1209600 && local.contract.dead_letter_retention_seconds == 1209600
        )
        says = "must be less than dead_letter_retention_seconds (${local.contract.dead_letter_retention_seconds}), unless both are 1209600: SQS counts from sending"
        try  = "a dead_letter_retention_seconds of 1209600"
      },
    ] : rule if local.on_sqs],
  ) }

  # Where the values are in the contract, the values, and the rules about them.
  checked = concat(
    [{ where = "", values = local.contract, rules = local.service_rules }],
    [for queue in local.effective_queues : { where = "queue ${queue.name}: ", values = queue, rules = local.queue_rules[queue.name] }],
    [for unknown in local.unknown_queues : {
      where = "worker ${unknown.worker}: ", values = { queues = unknown.queue }, rules = [{
        field = "queues", holds = false, says = "must be queues of the contract", try = join(", ", local.contract.queues[*].name)
      }]
    }],
  )
  broken_rules = flatten([for part in local.checked : [
    for rule in part.rules : "${part.where}${rule.field} ${rule.says}\n    given: ${jsonencode(part.values[rule.field])}\n    try:   ${rule.try}" if !rule.holds
  ]])
}
