module "names" {
  source = "../names"

  prefix      = "${local.name}-"
  environment = var.environment
  queues      = local.managed_queues
}

locals {
  sqs_arn = "arn:${local.partition}:sqs:${local.region}:${local.account}"

  managed_queues = [
    for queue in local.contract.queues : merge({ fifo = local.contract.broker == "sqs-fifo" }, local.contract.queue_defaults, queue)
    if try(queue.managed, local.contract.queue_defaults.managed, true)
  ]
  # Queues that existed already, which are not named after the service.
  named_queues = [
    for name in flatten([for queue in values(module.names.queues) : values(queue)]) : name if !startswith(name, "${local.name}-")
  ]

  broker_look_actions = [
    "cloudtrail:DescribeTrails",
    "cloudtrail:GetEventSelectors",
    "cloudtrail:GetInsightSelectors",
    "cloudtrail:GetTrail",
    "cloudtrail:GetTrailStatus",
    "cloudtrail:ListTags",
    "dynamodb:DescribeContinuousBackups",
    "dynamodb:DescribeTable",
    "dynamodb:DescribeTimeToLive",
    "dynamodb:ListTagsOfResource",
    "scheduler:GetSchedule",
    "scheduler:GetScheduleGroup",
    "scheduler:ListTagsForResource",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ListQueueTags",
  ]
  broker_change_statements = {
    Queues = { actions = ["sqs:*"], resources = [for name in concat(["${local.name}-*"], local.named_queues) : "${local.sqs_arn}:${name}"] }
    Trail = {
      actions   = ["cloudtrail:*"]
      resources = ["arn:${local.partition}:cloudtrail:${local.region}:${local.account}:trail/${local.name}"]
    }
    Schedules = {
      actions = ["scheduler:*"]
      resources = flatten([for group in [local.name, "${local.name}-delayed"] : [
        for kind in ["schedule-group/${group}", "schedule/${group}/*"] : "arn:${local.partition}:scheduler:${local.region}:${local.account}:${kind}"
      ]])
    }
    Control = { actions = ["dynamodb:*"], resources = ["${local.arn.dynamodb}:table/${local.name}-control"] }
    Bucket  = { actions = ["s3:*"], resources = ["${local.bucket_arn}-trail-${local.bucket_suffix}", "${local.bucket_arn}-trail-${local.bucket_suffix}/*"] }
  }
  broker_first_uses = []
  broker_role_users = ["scheduler.amazonaws.com"]
}
