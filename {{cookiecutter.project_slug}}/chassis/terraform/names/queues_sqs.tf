# The names of queues and dead-letter queues at SQS, the same as in celery_aws/contract/model.py,
# for the service and for the roles of its pipelines.

terraform {
  required_version = ">= 1.11"
}

variable "prefix" {
  description = "What names begin with by default, such as acme-jobs-staging-."
  type        = string
}

variable "environment" {
  description = "Name of the environment, which replaces {environment} in names of the contract."
  type        = string
}

variable "queues" {
  description = "Queues of the contract with their defaults, fifo among them."
  type        = any
}

locals {
  suffixes = { for queue in var.queues : queue.name => queue.fifo ? ".fifo" : "" }
  names = {
    for queue in var.queues : queue.name => (
      try(queue.queue_name, "") == ""
      ? "${var.prefix}${queue.name}${local.suffixes[queue.name]}"
      : replace(queue.queue_name, "{environment}", var.environment)
    )
  }
  dead_letter_names = {
    for queue in var.queues : queue.name => (
      try(queue.dead_letter_queue_name, "") == ""
      ? "${trimsuffix(local.names[queue.name], local.suffixes[queue.name])}-dlq${local.suffixes[queue.name]}"
      : replace(queue.dead_letter_queue_name, "{environment}", var.environment)
    )
  }
}

output "queues" {
  description = "Names of each queue's queue_name and dead_letter_name at SQS, by its name in the contract."
  value = {
    for name in keys(local.names) : name => { queue_name = local.names[name], dead_letter_name = local.dead_letter_names[name] }
  }
}
