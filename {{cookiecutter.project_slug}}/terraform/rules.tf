# The rules of contract.py about numbers, in its words: what stops a worker stops a plan. The reasons are
# there; so are the rules about names and choices, which are its alone.

locals {
  service_bounds = {
    dead_letter_retention_seconds = [60, 1209600]
    result_expires_seconds        = [60, 31536000]
    wait_time_seconds             = [0, 20]
    polling_interval_seconds      = [0.01, 1]
    max_message_bytes             = [1024, 1048576]
    soft_shutdown_seconds         = [1, 7200]
    stop_timeout_seconds          = [2, 7210]
  }
  service_rules = [
    {
      field = "soft_shutdown_seconds"
      holds = local.contract.compute != "ecs" || local.contract.soft_shutdown_seconds + 10 <= 120
      says  = "must leave room on ecs, which kills after 120 seconds, for 10 seconds to clean up"
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

  queue_bounds = {
    soft_limit_seconds         = [1, 43080]
    hard_limit_seconds         = [1, 43140]
    heartbeat_seconds          = [0, 14400]
    heartbeat_limit_seconds    = [1, 43200]
    retry_backoff_seconds      = [0.1, 43200]
    max_receive_count          = [1, 1000]
    retention_seconds          = [60, 1209600]
    concurrency                = [1, 1000]
    workers_min                = [0, 5000]
    workers_max                = [1, 5000]
    acceptable_latency_seconds = [1, 86400]
    seconds_per_task           = [0.001, 43200]
  }
  queue_rules = [for queue in local.contract.queues : [
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
      field = "max_countdown_seconds"
      holds = queue.max_countdown_seconds + queue.hard_limit_seconds + 60 <= 43200
      says  = "plus hard_limit_seconds (${queue.hard_limit_seconds}) plus 60 must fit the longest visibility timeout, 43200"
      try   = 43140 - queue.hard_limit_seconds
    },
    {
      field = "heartbeat_limit_seconds"
      holds = queue.heartbeat_seconds == 0 || queue.max_countdown_seconds + queue.hard_limit_seconds + 60 <= queue.heartbeat_limit_seconds
      says  = "must be at least max_countdown_seconds (${queue.max_countdown_seconds}) + hard_limit_seconds (${queue.hard_limit_seconds}) + 60, or tasks run twice"
      try   = 43200
    },
    {
      field = "visibility_timeout_seconds"
      holds = queue.visibility_timeout_seconds >= 3 * queue.heartbeat_seconds
      says  = "must be at least 3 times heartbeat_seconds (${queue.heartbeat_seconds}), so that one that fails does no harm"
      try   = 3 * queue.heartbeat_seconds
    },
    {
      field = "visibility_timeout_seconds"
      holds = queue.heartbeat_seconds > 0 || queue.max_countdown_seconds + queue.hard_limit_seconds + 60 <= queue.visibility_timeout_seconds
      says  = "must be at least max_countdown_seconds (${queue.max_countdown_seconds}) + hard_limit_seconds (${queue.hard_limit_seconds}) + 60, or tasks run twice"
      try   = queue.max_countdown_seconds + queue.hard_limit_seconds + 60
    },
    {
      field = "visibility_timeout_seconds"
      holds = queue.visibility_timeout_seconds <= 43200
      says  = "must be at most 43200"
      try   = 43200
    },
    {
      field = "max_receive_count"
      holds = queue.max_receive_count * queue.visibility_timeout_seconds < 1209600
      says  = "times visibility_timeout_seconds (${queue.visibility_timeout_seconds}) must be less than the longest retention, 1209600"
      try   = floor(1209599 / max(1, queue.visibility_timeout_seconds))
    },
    {
      field = "retention_seconds"
      holds = queue.visibility_timeout_seconds * queue.max_receive_count < queue.retention_seconds
      says  = "must be more than visibility_timeout_seconds (${queue.visibility_timeout_seconds}) times max_receive_count (${queue.max_receive_count}), or messages expire on their way"
      try   = min(1209600, queue.visibility_timeout_seconds * queue.max_receive_count + 86400)
    },
    {
      field = "retention_seconds"
      holds = (
        queue.retention_seconds < local.contract.dead_letter_retention_seconds ||
        queue.retention_seconds == 1209600 && local.contract.dead_letter_retention_seconds == 1209600
      )
      says = "must be less than dead_letter_retention_seconds (${local.contract.dead_letter_retention_seconds}), unless both are 1209600: a message keeps its age"
      try  = "a dead_letter_retention_seconds of 1209600"
    },
    {
      field = "workers_max"
      holds = queue.workers_min <= queue.workers_max
      says  = "must be at least workers_min (${queue.workers_min})"
      try   = queue.workers_min
    },
    {
      field = "workers_max"
      holds = queue.workers_max * queue.concurrency <= 120000
      says  = "times concurrency must be at most 120000, the messages SQS lets be in flight"
      try   = floor(120000 / max(1, queue.concurrency))
    },
  ]]

  whole_numbers = setsubtract(
    concat(keys(local.service_bounds), keys(local.queue_bounds), ["max_countdown_seconds", "visibility_timeout_seconds"]),
    ["polling_interval_seconds", "retry_backoff_seconds", "seconds_per_task"],
  )

  # Everything that is to be checked, each as: where the values stand, what they are called there, the rules between them.
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
