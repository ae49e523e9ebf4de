locals {
  broker_look_actions = [
    "cloudtrail:DescribeTrails",
    "cloudtrail:GetEventSelectors",
    "cloudtrail:GetInsightSelectors",
    "cloudtrail:GetTrail",
    "cloudtrail:GetTrailStatus",
    "cloudtrail:ListTags",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ListQueueTags",
  ]
  broker_change_statements = {
    Queues = { actions = ["sqs:*"], resources = ["arn:${local.partition}:sqs:${local.region}:${local.account}:${local.name}-*"] }
    Trail = {
      actions   = ["cloudtrail:*"]
      resources = ["arn:${local.partition}:cloudtrail:${local.region}:${local.account}:trail/${local.name}"]
    }
    Bucket = { actions = ["s3:*"], resources = ["${local.bucket_arn}-${local.account}-trail", "${local.bucket_arn}-${local.account}-trail/*"] }
  }
  broker_first_uses = []
}
