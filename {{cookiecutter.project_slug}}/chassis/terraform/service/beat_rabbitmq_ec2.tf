# The beat's Auto Scaling group of one instance is among those of the workers, in compute_ec2.tf.

locals {
  beat_machines = {
    for name, size in local.beat : name => merge(size, {
      # The smallest with the 1 GiB that dnf, Docker and the beat need together.
      instance_type = { ARM64 = "t4g.micro", X86_64 = "t3.micro" }[var.architecture]
      profile_arn   = aws_iam_instance_profile.beat[name].arn
    })
  }
}

resource "aws_iam_instance_profile" "beat" {
  for_each = local.beat

  name = "${local.global_name}-beat"
  role = aws_iam_role.beat[each.key].name

  # A name that changes must not leave the running beat without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

# Beside those of a producer, the permissions of the instance to start the beat.
resource "aws_iam_role_policy_attachment" "beat_session_manager" {
  for_each = local.beat

  role       = aws_iam_role.beat[each.key].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

data "aws_iam_policy_document" "run_beat" {
  for_each = local.beat

  source_policy_documents = concat(
    [data.aws_iam_policy_document.run_image.json, data.aws_iam_policy_document.read_broker_password.json],
    values(data.aws_iam_policy_document.read_task_secrets)[*].json,
    local.identity_read_policies,
  )

  statement {
    sid     = "CompleteLifecycleActions"
    actions = ["autoscaling:CompleteLifecycleAction"]
    resources = [
      "arn:${local.partition}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${local.name}-${each.key}"
    ]
  }
}

resource "aws_iam_role_policy" "run_beat" {
  for_each = local.beat

  name   = "run-beat"
  role   = aws_iam_role.beat[each.key].name
  policy = data.aws_iam_policy_document.run_beat[each.key].json
}
