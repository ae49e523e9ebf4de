# One Auto Scaling group per queue, one worker per machine: so `workers_max` and its like mean the
# same as on ECS, and scale-in stops one queue's worker and nobody else's.

variable "instance_type" {
  description = "Size of a machine; it runs as many processes as the contract's concurrency, and one more."
  type        = string
  default     = "t4g.small"
}

variable "ami_id" {
  description = "Machine image, Amazon Linux 2023 or one with docker, jq and the AWS CLI; empty for the newest of the former."
  type        = string
  default     = ""
}

locals {
  compute_services = ["ecr.api", "ecr.dkr", "logs", "ssm", "ssmmessages", "ec2messages"]
  secret_reader    = aws_iam_role.workers

  running_workers_metrics = {
    for name in keys(local.queues) : name => {
      namespace  = "AWS/AutoScaling"
      name       = "GroupInServiceInstances"
      dimensions = { AutoScalingGroupName = "${local.name}-${name}" }
    }
  }
  # EC2 does not measure memory by itself.
  utilization_metrics = {
    for name in keys(local.queues) : "${name}-CPUUtilization" => {
      namespace  = "AWS/EC2"
      name       = "CPUUtilization"
      dimensions = { AutoScalingGroupName = "${local.name}-${name}" }
    }
  }
}

resource "aws_launch_template" "worker" {
  for_each = local.queues

  name                   = "${local.name}-${each.key}"
  instance_type          = var.instance_type
  ebs_optimized          = true
  update_default_version = true
  # Resolved whenever a machine starts, so new machines are patched ones.
  # https://docs.aws.amazon.com/autoscaling/ec2/userguide/using-systems-manager-parameters.html
  image_id = var.ami_id != "" ? var.ami_id : "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${lower(var.architecture)}"

  iam_instance_profile {
    arn = aws_iam_instance_profile.workers.arn
  }

  # The container shares the machine's network, so one hop reaches the role's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  network_interfaces {
    associate_public_ip_address = false
    security_groups             = [aws_security_group.workers.id]
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type = "gp3"
      volume_size = 20
      encrypted   = true
    }
  }

  monitoring {
    enabled = true
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${local.name}-${each.key}", Service = local.contract.service, Environment = var.environment }
  }

  user_data = base64encode(templatefile("${path.module}/user_data.sh.tftpl", {
    service              = local.contract.service
    queue                = each.key
    image                = local.image
    registry             = local.registry
    region               = local.region
    environment          = local.environment
    access_key_arn       = local.access_key_arn
    log_group            = aws_cloudwatch_log_group.workers.name
    stop_timeout_seconds = local.contract.stop_timeout_seconds
  }))

  lifecycle {
    precondition {
      condition     = local.contract.soft_shutdown_seconds + 10 <= local.contract.stop_timeout_seconds
      error_message = "stop_timeout_seconds must be at least soft_shutdown_seconds + 10, or workers are killed while they give back what they hold."
    }
  }
}

resource "aws_autoscaling_group" "worker" {
  for_each = local.queues

  name                    = "${local.name}-${each.key}"
  min_size                = local.workers[each.key].min
  max_size                = local.workers[each.key].max
  vpc_zone_identifier     = local.subnet_ids
  default_instance_warmup = 120
  enabled_metrics         = ["GroupInServiceInstances"]
  # Workers have no port that could be waited for.
  wait_for_capacity_timeout = "0"

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = each.value.workers_min
      on_demand_percentage_above_base_capacity = var.use_spot ? 0 : 100
      spot_allocation_strategy                 = "price-capacity-optimized"
    }
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.worker[each.key].id
        version            = aws_launch_template.worker[each.key].latest_version
      }
    }
  }

  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 200
    }
  }

  tag {
    key                 = "Name"
    value               = "${local.name}-${each.key}"
    propagate_at_launch = false
  }
}

# The machine waits for its worker, which user data stops when the machine is to go. Nothing tells when
# that is done, and so nothing needs the right to: the time is known.
resource "aws_autoscaling_lifecycle_hook" "stop_worker" {
  for_each = local.queues

  name                   = "stop-worker"
  autoscaling_group_name = aws_autoscaling_group.worker[each.key].name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = min(7200, max(30, local.contract.stop_timeout_seconds + 30))
  default_result         = "CONTINUE"
}

data "aws_iam_policy_document" "trust_ec2" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "workers" {
  name               = "${local.name}-workers"
  assume_role_policy = data.aws_iam_policy_document.trust_ec2.json
}

resource "aws_iam_instance_profile" "workers" {
  name = "${local.name}-workers"
  role = aws_iam_role.workers.name
}

resource "aws_iam_role_policy" "run_image" {
  name   = "run-image"
  role   = aws_iam_role.workers.name
  policy = data.aws_iam_policy_document.run_image.json
}

# For who is on call: do machines start, and why do they go? It cannot be limited to some groups.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2autoscaling.html
data "aws_iam_policy_document" "look_at_workers" {
  statement {
    sid       = "ListWorkers"
    actions   = ["autoscaling:DescribeScalingActivities"]
    resources = ["*"]
  }
}

# A shell without an open port and without SSH keys.
resource "aws_iam_role_policy_attachment" "session_manager" {
  role       = aws_iam_role.workers.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}
