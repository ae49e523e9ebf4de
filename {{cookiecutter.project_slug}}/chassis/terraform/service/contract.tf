# The effective contract: every queue and worker with all its values, and a worker of its name for
# each queue that no worker lists; the same as `effective` in celery_aws/contract/reading.py.

locals {
  contract = var.contract

  # Unless a queue says otherwise, it is of the broker's kind; RabbitMQ has one kind only.
  queue_kind       = { for broker, fifo in { sqs-standard = false, sqs-fifo = true } : "fifo" => fifo if broker == local.contract.broker }
  effective_queues = [for queue in local.contract.queues : merge(local.queue_kind, local.contract.queue_defaults, queue)]
  # Queues that a worker lists and that do not exist, which rules.tf reports. Then no worker is as
  # listed, because looking up such a queue would end the plan with another error.
  unknown_queues = flatten([for worker in local.contract.workers : [
    for queue in worker.queues : { worker = worker.name, queue = queue }
    if !contains(local.contract.queues[*].name, queue)
  ]])
  listed_workers = [
    for worker in local.contract.workers : merge(local.contract.worker_defaults, worker)
    if length(local.unknown_queues) == 0
  ]
  implied_workers = [
    for queue in local.contract.queues : merge(local.contract.worker_defaults, { name = queue.name, queues = [queue.name] })
    if !contains(flatten([for worker in local.listed_workers : worker.queues]), queue.name)
  ]
  effective_workers = concat(local.listed_workers, local.implied_workers)
}
