locals {
  compute_look_actions = [
    "application-autoscaling:Describe*",
    "application-autoscaling:ListTagsForResource",
    "ecs:Describe*",
    "ecs:ListTagsForResource",
  ]
  compute_change_statements = {
    Services = {
      actions = ["ecs:*"]
      resources = [
        "${local.arn.ecs}:cluster/${local.name}",
        "${local.arn.ecs}:service/${local.name}/*",
        "${local.arn.ecs}:task-definition/${local.name}-*",
      ]
    }
    # `make rollout` runs a worker of a service without workers, and stops it; see rollout_ecs.sh.
    Trials = { actions = ["ecs:StopTask"], resources = ["${local.arn.ecs}:task/${local.name}/*"] }
    # This action cannot be limited to names.
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
    OldVersions = { actions = ["ecs:DeregisterTaskDefinition"], resources = ["*"] }
    # These cannot either: scalable targets have ids of their own.
    Scaling = {
      actions = [
        "application-autoscaling:DeleteScalingPolicy",
        "application-autoscaling:DeregisterScalableTarget",
        "application-autoscaling:PutScalingPolicy",
        "application-autoscaling:RegisterScalableTarget",
        "application-autoscaling:TagResource",
        "application-autoscaling:UntagResource",
      ]
      resources = ["${local.arn["application-autoscaling"]}:scalable-target/*"]
    }
    # https://docs.aws.amazon.com/autoscaling/application/userguide/security_iam_id-based-policy-examples.html
    ScalingAlarms = {
      actions   = ["cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"]
      resources = ["${local.arn.cloudwatch}:alarm:TargetTracking-service/${local.name}/*"]
    }
  }
  compute_first_uses = ["ecs.amazonaws.com", "ecs.application-autoscaling.amazonaws.com"]
  role_users         = ["ecs-tasks.amazonaws.com"]
}
