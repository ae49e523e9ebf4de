# The rules about numbers, in the same words as celery_aws/contract/, which has their reasons and
# the rules about names and choices: a contract that stops a worker stops a plan. The rules of one
# broker are in rules_<broker>.tf.

locals {
  service_bounds = merge(local.broker_service_bounds, {
    dead_letter_retention_seconds = [60, 1209600]
    result_expires_seconds        = [60, 31536000]
    max_message_bytes             = [1024, 1048576]
    soft_shutdown_seconds         = [1, 7200]
    stop_timeout_seconds          = [2, 7210]
  })
  service_rules = [
    {
      field = "soft_shutdown_seconds"
      holds = local.contract.compute != "ecs" || local.contract.soft_shutdown_seconds + 10 <= 120
      says  = "must leave 10 seconds for the clean-up on ecs, which kills a worker after 120 seconds"
      try   = 110
    },
    {
      field = "stop_timeout_seconds"
      holds = local.contract.compute != "ecs" || local.contract.stop_timeout_seconds <= 120
      says  = "must be at most 120 on ecs"
      try   = 120
    },
    {
      field = "stop_timeout_seconds"
      holds = local.contract.soft_shutdown_seconds + 10 <= local.contract.stop_timeout_seconds
      says  = "must be at least soft_shutdown_seconds (${local.contract.soft_shutdown_seconds}) + 10"
      try   = local.contract.soft_shutdown_seconds + 10
    },
  ]

  queue_bounds = merge(local.broker_queue_bounds, {
    soft_limit_seconds         = [1, 43080]
    hard_limit_seconds         = [1, 43140]
    retry_backoff_seconds      = [0.1, 43200]
    max_receive_count          = [1, 1000]
    retention_seconds          = [60, 1209600]
    concurrency                = [1, 1000]
    workers_max                = [1, 5000]
    acceptable_latency_seconds = [1, 86400]
    seconds_per_task           = [0.001, 43200]
  })
  queue_rules = [for index, queue in local.contract.queues : concat(local.broker_queue_rules[index], [
    {
      field = "hard_limit_seconds"
      holds = queue.hard_limit_seconds > queue.soft_limit_seconds
      says  = "must be greater than soft_limit_seconds (${queue.soft_limit_seconds})"
      try   = queue.soft_limit_seconds + 60
    },
    {
      field = "max_countdown_seconds"
      holds = queue.max_countdown_seconds >= 0
      says  = "must not be negative"
      try   = 0
    },
    {
      field = "visibility_timeout_seconds"
      holds = queue.visibility_timeout_seconds <= 43200
      says  = "must be at most 43200"
      try   = 43200
    },
    {
      field = "workers_max"
      holds = queue.workers_min <= queue.workers_max
      says  = "must be at least workers_min (${queue.workers_min})"
      try   = queue.workers_min
    },
  ])]

  whole_numbers = setsubtract(
    concat(keys(local.service_bounds), keys(local.queue_bounds), ["max_countdown_seconds", "visibility_timeout_seconds"]),
    ["polling_interval_seconds", "retry_backoff_seconds", "seconds_per_task"],
  )

  # What is checked: where the values are in the contract, the values, their bounds, and the rules
  # between them.
  checked = concat(
    [{ where = "", values = local.contract, bounds = local.service_bounds, rules = local.service_rules }],
    [for index, queue in local.contract.queues : {
      where = "queue ${queue.name}: ", values = queue, bounds = local.queue_bounds, rules = local.queue_rules[index]
    }],
  )
  broken_rules = flatten([for part in local.checked : [
    for rule in concat(
      [for field, value in part.values : {
        field = field
        holds = can(regex("^-?[0-9]+$", jsonencode(value)))
        says  = "must be a whole number"
        try   = "digits only, such as 60"
      } if contains(local.whole_numbers, field)],
      [for field, bounds in part.bounds : {
        field = field
        holds = part.values[field] >= bounds[0] && part.values[field] <= bounds[1]
        says  = "must be between ${bounds[0]} and ${bounds[1]}"
        try   = part.values[field] < bounds[0] ? bounds[0] : bounds[1]
      }],
      part.rules,
    ) : "${part.where}${rule.field} ${rule.says}\n    given: ${jsonencode(part.values[rule.field])}\n    try:   ${rule.try}" if !rule.holds
  ]])
}
