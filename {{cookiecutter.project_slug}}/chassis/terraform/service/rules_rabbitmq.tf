# The rules about numbers that apply to RabbitMQ only; see rules.tf.

locals {
  broker_service_bounds = {}
  broker_queue_bounds   = { workers_min = [1, 5000] }
  broker_queue_rules = [for queue in local.contract.queues : [
    {
      field = "max_countdown_seconds"
      holds = queue.max_countdown_seconds <= 268435455
      says  = "must be at most 268435455, the longest delay of Celery's native delayed delivery"
      try   = 268435455
    },
    {
      field = "visibility_timeout_seconds"
      holds = queue.hard_limit_seconds + 60 <= queue.visibility_timeout_seconds
      says  = "must be at least hard_limit_seconds (${queue.hard_limit_seconds}) + 60, or messages of running tasks are redelivered"
      try   = queue.hard_limit_seconds + 60
    },
  ]]
}
