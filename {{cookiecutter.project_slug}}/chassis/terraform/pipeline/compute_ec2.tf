locals {
  compute_look_actions = ["autoscaling:Describe*"]
  compute_change_statements = {
    Groups = { actions = ["autoscaling:*"], resources = ["${local.arn.autoscaling}:autoScalingGroup:*:autoScalingGroupName/${local.name}-*"] }
    ScalingAlarms = {
      actions   = ["cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"]
      resources = ["${local.arn.cloudwatch}:alarm:TargetTracking-${local.name}-*"]
    }
    Machines = {
      actions    = ["ec2:*LaunchTemplate*"]
      resources  = ["${local.arn.ec2}:launch-template/*"]
      conditions = local.own_tags
    }
    NewMachines = { actions = ["ec2:CreateLaunchTemplate"], resources = ["${local.arn.ec2}:launch-template/*"] }
    # Creating a group needs the permissions with which the group starts instances.
    # https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
    StartMachines = {
      actions   = ["ec2:RunInstances"]
      resources = ["${local.arn.ec2}:*", "arn:${local.partition}:ec2:${local.region}::image/*"]
    }
    NewestImage = { actions = ["ssm:GetParameters"], resources = ["arn:${local.partition}:ssm:${local.region}::parameter/aws/service/*"] }
    Profile = {
      actions = [
        "iam:AddRoleToInstanceProfile",
        "iam:CreateInstanceProfile",
        "iam:DeleteInstanceProfile",
        "iam:RemoveRoleFromInstanceProfile",
        "iam:TagInstanceProfile",
        "iam:UntagInstanceProfile",
      ]
      resources = ["${local.global_arn.iam}:instance-profile/${local.global_name}-*"]
    }
  }
  compute_first_uses = ["autoscaling.amazonaws.com", "spot.amazonaws.com"]
  role_users         = ["ec2.amazonaws.com"]
}
