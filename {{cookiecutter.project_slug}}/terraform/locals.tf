locals {
  # The one place for names, numbers and choices; the service reads the same file.
  contract = jsondecode(file("${path.module}/../contract.json"))

  name       = "${local.contract.service}-${var.environment}"
  region     = local.contract.region
  account    = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  dns_suffix = data.aws_partition.current.dns_suffix

  # ARNs are built from names, not read from resources: so they are known in a plan, and tests can
  # look at whole policies before anything exists.
  sqs_arn = "arn:${local.partition}:sqs:${local.region}:${local.account}"

  queues = {
    for queue in local.contract.queues : queue.name => merge(queue, {
      queue_name       = "${local.name}-${queue.name}${local.queue_name_suffix}"
      dead_letter_name = "${local.name}-${queue.name}-dlq${local.queue_name_suffix}"
      # What a worker may hold a message for, with a minute for what is around the task.
      longest_delivery_seconds = queue.max_countdown_seconds + queue.hard_limit_seconds + 60
      # A worker clears this backlog within the acceptable latency.
      backlog_per_worker = max(1, floor(queue.acceptable_latency_seconds / queue.seconds_per_task * queue.concurrency))
    })
  }
  queue_arns       = [for queue in local.queues : "${local.sqs_arn}:${queue.queue_name}"]
  dead_letter_arns = [for queue in local.queues : "${local.sqs_arn}:${queue.dead_letter_name}"]

  # What settings.py of the service reads, except secrets.
  environment = merge(
    {
      ENVIRONMENT        = var.environment
      QUEUE_URL_BASE     = "https://sqs.${local.region}.${local.dns_suffix}/${local.account}"
      LOG_LEVEL          = var.log_level
      AWS_DEFAULT_REGION = local.region
    },
    local.results_environment,
  )
}
