locals {
  name       = "${local.contract.service}-${var.environment}"
  region     = local.contract.region
  account    = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  dns_suffix = data.aws_partition.current.dns_suffix

  # Roles, policies, users, dashboards and budgets are global to an account, so that their names
  # carry the region. Those of buckets are global to all accounts, and too short for an account and
  # a region.
  global_name   = "${local.name}-${local.region}"
  bucket_suffix = substr(sha256("${local.account} ${local.region}"), 0, 12)

  # The owner's KMS key; null for AWS managed keys.
  own_key = var.kms_key_arn == "" ? null : var.kms_key_arn
  # What limits every role and user; null for nothing.
  boundary = var.permissions_boundary_arn == "" ? null : var.permissions_boundary_arn

  # By name. A worker serves one or more queues, and each queue has one worker.
  #
  # A queue of another account has no metrics here, so it cannot scale its worker. Such a worker does
  # not scale to zero, because messages in that queue could not start it again: its `min` is at least
  # 1. If none of its queues has metrics, it is not scaled at all, but fixed at `min`.
  watched_queues = {
    for worker in local.effective_workers : worker.name => [for queue in worker.queues : queue if local.broker_queues[queue].has_metrics]
  }
  workers = {
    for worker in local.effective_workers : worker.name => merge(worker, {
      min = length(local.watched_queues[worker.name]) == length(worker.queues) ? worker.min : max(1, worker.min)
      max = length(local.watched_queues[worker.name]) > 0 ? worker.max : max(1, worker.min)
    })
  }
  worker_of = merge([for worker in local.workers : { for queue in worker.queues : queue => worker }]...)
  queues = {
    for queue in local.effective_queues : queue.name => merge(queue, local.broker_queues[queue.name], {
      worker = local.worker_of[queue.name]
      # The backlog that one worker clears within the acceptable latency, if it has nothing else to do.
      backlog_per_worker = max(1, floor(queue.acceptable_latency_seconds / queue.seconds_per_task * local.worker_of[queue.name].concurrency))
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
