# One Auto Scaling group per worker of the contract and for the beat, and one of them per instance, so that `min` and
# `max` mean the same as on ECS, and scale-in stops that worker only.

variable "compute" {
  description = <<-EOT
    The compute of the workers; every attribute is optional. Their size is in contract.json.
    ami_id: AMI, Amazon Linux 2023 or one with cloud-init, docker, jq, curl and the AWS CLI
    (default: the latest Amazon Linux 2023).
    spot_instance_types: with use_spot, the instance types of Spot Instances besides each worker's
    own, of the same architecture and no smaller (default: the next larger one of its family).
    There are no sidecars on EC2: an agent, such as an OpenTelemetry collector, belongs into the AMI.
  EOT
  type        = any
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.compute), ["ami_id", "spot_instance_types"])) == 0
    error_message = "compute takes ami_id and spot_instance_types; instance_type is in contract.json, in worker_defaults or workers. There are no sidecars on EC2: put an agent into the AMI."
  }
}

locals {
  compute = merge({ ami_id = "", spot_instance_types = [] }, var.compute)

  # By name, what runs on instances of its own.
  machines = merge(local.workers, local.beat_machines)

  # Spot capacity of one type runs out. The next size of a family has its architecture, is offered
  # where the type is, and usually costs less on Spot than the type on demand.
  # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-best-practices.html
  instance_sizes = ["nano", "micro", "small", "medium", "large", "xlarge", "2xlarge", "4xlarge", "8xlarge"]
  next_instance_types = {
    for name, worker in local.machines : name => [
      for index, size in slice(local.instance_sizes, 0, 8) :
      "${split(".", worker.instance_type)[0]}.${local.instance_sizes[index + 1]}" if endswith(worker.instance_type, ".${size}")
    ]
  }
  # In this order, which On-Demand Instances follow: they have the worker's own type.
  instance_types = {
    for name, worker in local.machines : name => distinct(concat(
      [worker.instance_type],
      var.use_spot ? coalescelist(local.compute.spot_instance_types, local.next_instance_types[name], [worker.instance_type]) : [],
    ))
  }
}

locals {
  # Session Manager needs no ec2messages since SSM Agent 3.3.40.0.
  # https://docs.aws.amazon.com/systems-manager/latest/userguide/systems-manager-setting-up-messageAPIs.html
  compute_services = ["autoscaling", "ecr.api", "ecr.dkr", "logs", "ssm", "ssmmessages"]
  secret_reader    = aws_iam_role.workers
  trust_policy     = data.aws_iam_policy_document.trust_ec2.json

  running_workers_metrics = {
    for name in keys(local.machines) : name => {
      namespace  = "AWS/AutoScaling"
      name       = "GroupInServiceInstances"
      dimensions = { AutoScalingGroupName = "${local.name}-${name}" }
    }
  }
  # EC2 publishes no memory metrics.
  utilization_metrics = {
    for name in keys(local.workers) : "${name}-CPUUtilization" => {
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
    GROUP_PREFIX         = local.name
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
    for name in keys(local.machines) : name => join("\n", ["#cloud-config", yamlencode({
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

data "aws_default_tags" "current" {}

resource "aws_launch_template" "worker" {
  for_each = local.machines

  name                   = "${local.name}-${each.key}"
  instance_type          = each.value.instance_type
  ebs_optimized          = true
  update_default_version = true
  # Resolved when an instance starts, so new instances run the latest AMI.
  # https://docs.aws.amazon.com/autoscaling/ec2/userguide/using-systems-manager-parameters.html
  image_id = local.compute.ami_id != "" ? local.compute.ami_id : "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${lower(var.architecture)}"

  iam_instance_profile {
    arn = try(each.value.profile_arn, aws_iam_instance_profile.workers.arn)
  }

  # The container uses the host network, so one hop is enough to get the role's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  network_interfaces {
    associate_public_ip_address = local.public_addresses
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

  # The provider's default tags do not reach what an Auto Scaling group starts.
  dynamic "tag_specifications" {
    for_each = toset(["instance", "network-interface", "volume"])
    content {
      resource_type = tag_specifications.value
      tags          = merge(data.aws_default_tags.current.tags, { Name = "${local.name}-${each.key}" })
    }
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
  for_each = local.machines

  name                    = "${local.name}-${each.key}"
  min_size                = local.capacity[each.key].min
  max_size                = local.capacity[each.key].max
  vpc_zone_identifier     = local.subnet_ids
  default_instance_warmup = 120
  enabled_metrics         = ["GroupInServiceInstances"]
  # There is no health check to wait for: workers have no port.
  wait_for_capacity_timeout = "0"

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = each.value.min
      on_demand_percentage_above_base_capacity = var.use_spot ? 0 : 100
      on_demand_allocation_strategy            = "prioritized"
      spot_allocation_strategy                 = "price-capacity-optimized"
    }
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.worker[each.key].id
        version            = aws_launch_template.worker[each.key].latest_version
      }
      dynamic "override" {
        for_each = local.instance_types[each.key]
        content {
          instance_type = override.value
        }
      }
    }
  }

  # For the instances with which the group starts; later, aws_autoscaling_lifecycle_hook.start_worker
  # is in effect. A change of these would replace the group.
  initial_lifecycle_hook {
    name                 = local.start_hook.name
    lifecycle_transition = local.start_hook.transition
    heartbeat_timeout    = local.start_hook.timeout_seconds
    default_result       = local.start_hook.default_result
  }
  lifecycle {
    ignore_changes = [initial_lifecycle_hook]
  }

  instance_refresh {
    strategy = "Rolling"
    preferences {
      # There is one beat: the old instance stops it at once, long before the new one has booted.
      min_healthy_percentage = contains(keys(local.beat), each.key) ? 0 : 100
      max_healthy_percentage = contains(keys(local.beat), each.key) ? 100 : 200
    }
  }

  tag {
    key                 = "Name"
    value               = "${local.name}-${each.key}"
    propagate_at_launch = false
  }
}

# An instance is in service when its worker is ready; lifecycle.sh then completes the action. If it
# does not, the instance is terminated, and a deployment does not go on.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks-overview.html
locals {
  start_hook = {
    name       = "start-worker"
    transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    # To boot, install Docker, pull the image and poll for the first time; the latter two may each
    # take TimeoutStartSec of worker@.service. A rollback cancels the instance refresh, which waits for
    # instances that are starting, and the provider waits for that for 15 minutes.
    # https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CancelInstanceRefresh.html
    # https://github.com/hashicorp/terraform-provider-aws/blob/main/internal/service/autoscaling/group.go
    timeout_seconds = 720
    default_result  = "ABANDON"
  }
}

resource "aws_autoscaling_lifecycle_hook" "start_worker" {
  for_each = local.machines

  name                   = local.start_hook.name
  autoscaling_group_name = aws_autoscaling_group.worker[each.key].name
  lifecycle_transition   = local.start_hook.transition
  heartbeat_timeout      = local.start_hook.timeout_seconds
  default_result         = local.start_hook.default_result
}

# Delays termination while drain.service stops the worker, which takes no more messages, and finishes
# or releases its tasks. lifecycle.sh completes the action when it has stopped. The additional time is
# for drain.sh to notice the termination, and for systemd to end a worker that Docker had to kill. The
# contract's rules keep the sum below the maximum, 7200.
# https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutLifecycleHook.html
resource "aws_autoscaling_lifecycle_hook" "stop_worker" {
  for_each = local.machines

  name                   = "stop-worker"
  autoscaling_group_name = aws_autoscaling_group.worker[each.key].name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = local.contract.stop_timeout_seconds + 30
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
  name                 = "${local.global_name}-workers"
  assume_role_policy   = local.trust_policy
  permissions_boundary = local.boundary

  # A name that changes must not leave running workers, or producers elsewhere, without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_instance_profile" "workers" {
  name = "${local.global_name}-workers"
  role = aws_iam_role.workers.name

  # A name that changes must not leave running workers, or producers elsewhere, without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role_policy" "run_image" {
  name   = "run-image"
  role   = aws_iam_role.workers.name
  policy = data.aws_iam_policy_document.run_image.json
}

# Tasks share the role, so the action is limited to the service's own groups.
data "aws_iam_policy_document" "lifecycle" {
  statement {
    sid     = "CompleteLifecycleActions"
    actions = ["autoscaling:CompleteLifecycleAction"]
    resources = [
      for name in keys(local.workers) :
      "arn:${local.partition}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${local.name}-${name}"
    ]
  }
}

resource "aws_iam_role_policy" "lifecycle" {
  name   = "lifecycle"
  role   = aws_iam_role.workers.name
  policy = data.aws_iam_policy_document.lifecycle.json
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
