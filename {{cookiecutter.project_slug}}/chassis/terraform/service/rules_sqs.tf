# The rules about numbers that apply to SQS only; see rules.tf.

locals {
  broker_service_bounds = {
    wait_time_seconds        = [0, 20]
    polling_interval_seconds = [0.01, 1]
  }
  broker_queue_bounds = {
    heartbeat_seconds       = [0, 14400]
    heartbeat_limit_seconds = [1, 43200]
    workers_min             = [0, 5000]
  }
  broker_queue_rules = [for queue in local.contract.queues : [
    {
      field = "max_countdown_seconds"
      holds = queue.max_countdown_seconds + queue.hard_limit_seconds + 60 <= 43200
      says  = "plus hard_limit_seconds (${queue.hard_limit_seconds}) plus 60 must be at most 43200, SQS's longest timeout"
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
      says  = "must be at least 3 times heartbeat_seconds (${queue.heartbeat_seconds}), so that one heartbeat may fail"
      try   = 3 * queue.heartbeat_seconds
    },
    {
      field = "visibility_timeout_seconds"
      holds = queue.heartbeat_seconds > 0 || queue.max_countdown_seconds + queue.hard_limit_seconds + 60 <= queue.visibility_timeout_seconds
      says  = "must be at least max_countdown_seconds (${queue.max_countdown_seconds}) + hard_limit_seconds (${queue.hard_limit_seconds}) + 60, or tasks run twice"
      try   = queue.max_countdown_seconds + queue.hard_limit_seconds + 60
    },
    {
      field = "max_receive_count"
      holds = queue.max_receive_count * queue.visibility_timeout_seconds < 1209600
      says  = "times visibility_timeout_seconds (${queue.visibility_timeout_seconds}) must be less than 1209600, SQS's longest retention"
      try   = floor(1209599 / max(1, queue.visibility_timeout_seconds))
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
    {
      field = "workers_max"
      holds = queue.workers_max * queue.concurrency <= 120000
      says  = "times concurrency must be at most 120000, SQS's limit of messages in flight"
      try   = floor(120000 / max(1, queue.concurrency))
    },
  ]]
}
