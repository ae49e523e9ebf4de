# One Auto Scaling group per queue and one worker per instance, so that `workers_min` and
# `workers_max` mean the same as on ECS, and scale-in stops a worker of that queue only.

variable "compute" {
  description = <<-EOT
    The compute of the workers; every attribute is optional.
    instance_type: EC2 instance type (default t4g.small); an instance runs one process more than
    the contract's concurrency.
    ami_id: AMI, Amazon Linux 2023 or one with cloud-init, docker, jq, curl and the AWS CLI
    (default: the latest Amazon Linux 2023).
  EOT
  type        = any
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.compute), ["instance_type", "ami_id"])) == 0
    error_message = "compute takes instance_type and ami_id."
  }
}

locals {
  compute = merge({ instance_type = "t4g.small", ami_id = "" }, var.compute)
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
  # EC2 publishes no memory metrics.
  utilization_metrics = {
    for name in keys(local.queues) : "${name}-CPUUtilization" => {
      namespace  = "AWS/EC2"
      name       = "CPUUtilization"
      dimensions = { AutoScalingGroupName = "${local.name}-${name}" }
    }
  }
}

locals {
  # Environment variables of the scripts in ec2/.
  machine_environment = {
    SERVICE              = local.contract.service
    IMAGE                = local.image
    STOP_TIMEOUT_SECONDS = local.contract.stop_timeout_seconds
    LOG_GROUP            = aws_cloudwatch_log_group.workers.name
    SECRETS              = join(" ", [for secret in local.secrets : "${secret.prefix}=${secret.arn}"])
    TASK_SECRETS         = join(" ", [for name, arn in var.secrets : "${name}=${arn}"])
    AWS_DEFAULT_REGION   = local.region
  }

  machine_files = merge(
    { for name in fileset("${path.module}/ec2", "*.service") : "/etc/systemd/system/${name}" => file("${path.module}/ec2/${name}") },
    { for name in fileset("${path.module}/ec2", "*.sh") : "/usr/local/lib/worker/${name}" => file("${path.module}/ec2/${name}") },
    {
      "/etc/worker/machine.env" = join("", [for name, value in local.machine_environment : "${name}=${value}\n"])
      "/etc/worker/service.env" = join("", [for name, value in local.environment : "${name}=${value}\n"])
      # Docker kills a worker that takes longer than its timeout; 10 s later systemd kills the
      # rest.
      "/etc/systemd/system/worker@.service.d/contract.conf" = "[Service]\nTimeoutStopSec=${local.contract.stop_timeout_seconds + 10}\n"
    },
  )

  # https://cloudinit.readthedocs.io/en/latest/reference/modules.html
  user_data = {
    for name in keys(local.queues) : name => join("\n", ["#cloud-config", yamlencode({
      write_files = [
        for path, content in local.machine_files : { path = path, content = content, permissions = endswith(path, ".sh") ? "0755" : "0644" }
      ]
      runcmd = [
        # Without internet access, dnf works through the S3 endpoint: the packages are in S3.
        "if ! command -v docker || ! command -v jq; then dnf install --assumeyes docker jq; fi",
        "systemctl enable --now docker",
        # --no-block: systemd restarts a worker that cannot start, and cloud-init must not wait for
        # it.
        "systemctl enable --now --no-block worker@${name} drain",
      ]
    })])
  }
}

resource "aws_launch_template" "worker" {
  for_each = local.queues

  name                   = "${local.name}-${each.key}"
  instance_type          = local.compute.instance_type
  ebs_optimized          = true
  update_default_version = true
  # Resolved when an instance starts, so new instances run the latest AMI.
  # https://docs.aws.amazon.com/autoscaling/ec2/userguide/using-systems-manager-parameters.html
  image_id = local.compute.ami_id != "" ? local.compute.ami_id : "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${lower(var.architecture)}"

  iam_instance_profile {
    arn = aws_iam_instance_profile.workers.arn
  }

  # The container uses the host network, so one hop is enough to get the role's credentials.
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

  user_data = base64encode(local.user_data[each.key])

  lifecycle {
    precondition {
      # The limit applies before encoding.
      # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html
      condition     = length(base64encode(local.user_data[each.key])) <= 16384 / 3 * 4
      error_message = "User data must be at most 16 KB: shorten the files in chassis/terraform/service/ec2/, or put them into the AMI."
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
  # There is no health check to wait for: workers have no port.
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

# Delays termination while drain.service stops the worker. The hook ends by timeout, so instances
# need no permission to complete it.
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

# For operators: why instances start and terminate. This action cannot be limited to some groups.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2autoscaling.html
data "aws_iam_policy_document" "look_at_workers" {
  statement {
    sid       = "ListWorkers"
    actions   = ["autoscaling:DescribeScalingActivities"]
    resources = ["*"]
  }
}

# Session Manager: a shell without an open port or SSH keys.
resource "aws_iam_role_policy_attachment" "session_manager" {
  role       = aws_iam_role.workers.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}
