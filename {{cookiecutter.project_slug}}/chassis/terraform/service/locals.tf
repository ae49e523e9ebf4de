locals {
  contract = var.contract

  name       = "${local.contract.service}-${var.environment}"
  region     = local.contract.region
  account    = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  dns_suffix = data.aws_partition.current.dns_suffix

  # The owner's KMS key; null for AWS managed keys.
  own_key = var.kms_key_arn == "" ? null : var.kms_key_arn

  queues = {
    for queue in local.contract.queues : queue.name => merge(queue, {
      queue_name       = "${local.queue_name_prefix}${queue.name}${local.queue_name_suffix}"
      dead_letter_name = "${local.queue_name_prefix}${queue.name}-dlq${local.queue_name_suffix}"
      # The backlog that one worker clears within the acceptable latency.
      backlog_per_worker = max(1, floor(queue.acceptable_latency_seconds / queue.seconds_per_task * queue.concurrency))
    })
  }

  # The environment variables that the service's settings read, except secrets.
  environment = merge(local.service_environment, var.environment_variables)
  service_environment = merge(
    {
      ENVIRONMENT        = var.environment
      LOG_LEVEL          = var.log_level
      AWS_DEFAULT_REGION = local.region
    },
    local.broker_environment,
    local.results_environment,
  )

  # From Secrets Manager: each key of a secret's JSON becomes an environment variable,
  # `<prefix><KEY>`.
  secrets = concat(local.identity_secrets, local.broker_secrets)
}
