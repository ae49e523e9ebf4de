# One ECS service per worker of the contract. Queues with a worker of their own never wait behind
# each other's tasks.

variable "compute" {
  description = <<-EOT
    The compute of the workers; every attribute is optional. Their size is in contract.json.
    enable_exec: allow a shell in workers by ECS Exec, which needs a writable file system (default
    false).
    sidecars: further containers of every worker, such as an OpenTelemetry collector, as in
    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html. They share
    the worker's cpu_units and memory_mib, and log beside it unless they have a logConfiguration.
  EOT
  type        = any
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.compute), ["enable_exec", "sidecars"])) == 0
    error_message = "compute takes enable_exec and sidecars; cpu_units and memory_mib are in contract.json, in worker_defaults or workers."
  }
  validation {
    condition     = alltrue([for sidecar in try(var.compute.sidecars, []) : can(sidecar.image) && try(sidecar.name != "worker", false)])
    error_message = "Each of the compute's sidecars needs an image, and a name other than worker."
  }
}

locals {
  compute = merge({ enable_exec = false, sidecars = [] }, var.compute)
}

locals {
  compute_services = concat(["ecr.api", "ecr.dkr", "logs"], local.compute.enable_exec || local.broker_sessions ? ["ssmmessages"] : [])
  secret_reader    = aws_iam_role.execution
  trust_policy     = data.aws_iam_policy_document.trust_ecs.json

  # The environment variables of every container of the service.
  container_environment = [for name, value in local.environment : { name = name, value = value }]
  container_secrets = concat(
    flatten([
      for secret in local.secrets : [
        for key in secret.keys : { name = "${secret.prefix}${upper(key)}", valueFrom = "${secret.arn}:${key}::" }
      ]
    ]),
    [for name, arn in var.secrets : { name = name, valueFrom = arn }],
  )

  log_configuration = {
    for name in keys(merge(local.workers, local.beat)) : name => {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.workers.name
        awslogs-region        = local.region
        awslogs-stream-prefix = name
        # Tasks must not block when logs cannot be delivered.
        mode            = "non-blocking"
        max-buffer-size = "4m"
      }
    }
  }

  running_workers_metrics = {
    for name in keys(merge(local.workers, local.beat)) : name => {
      namespace  = "ECS/ContainerInsights"
      name       = "RunningTaskCount"
      dimensions = { ClusterName = local.name, ServiceName = name }
    }
  }
  utilization_metrics = merge([
    for name in keys(local.workers) : {
      for metric in ["CPUUtilization", "MemoryUtilization"] : "${name}-${metric}" => {
        namespace  = "AWS/ECS"
        name       = metric
        dimensions = { ClusterName = local.name, ServiceName = name }
      }
    }
  ]...)
}

resource "aws_ecs_cluster" "this" {
  name = local.name

  # Publishes the number of running workers, by which scaling divides.
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

locals {
  # What the containers of workers and of the beat have in common.
  containers = {
    for name in keys(merge(local.workers, local.beat)) : name => {
      image       = local.image
      essential   = true
      environment = local.container_environment
      secrets     = local.container_secrets
      # On Fargate only root can write to it, unless the image declares it as a VOLUME.
      # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/bind-mounts.html
      mountPoints     = [{ sourceVolume = "tmp", containerPath = "/tmp", readOnly = false }]
      linuxParameters = { initProcessEnabled = true }
      healthCheck = {
        command     = ["CMD", local.contract.service, "health", name]
        interval    = 30
        timeout     = 10
        retries     = 3
        startPeriod = 60
      }
      logConfiguration = local.log_configuration[name]
    }
  }
}

resource "aws_ecs_task_definition" "worker" {
  for_each = local.workers

  family                   = "${local.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = each.value.cpu_units
  memory                   = each.value.memory_mib
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.workers.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode(concat([merge(local.containers[each.key], {
    name                   = "worker"
    command                = [local.contract.service, "worker", each.key]
    stopTimeout            = local.contract.stop_timeout_seconds
    readonlyRootFilesystem = !local.compute.enable_exec
  })], [for sidecar in local.compute.sidecars : merge({ logConfiguration = local.log_configuration[each.key] }, sidecar)]))

  volume {
    name = "tmp"
  }
}

resource "aws_ecs_service" "worker" {
  for_each = local.workers

  name                    = each.key
  cluster                 = aws_ecs_cluster.this.id
  task_definition         = aws_ecs_task_definition.worker[each.key].arn
  desired_count           = local.capacity[each.key].min
  enable_execute_command  = local.compute.enable_exec
  propagate_tags          = "SERVICE"
  enable_ecs_managed_tags = true
  # Without this, a change of use_spot replaces the service.
  force_new_deployment = true

  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    base              = var.use_spot ? each.value.min : 0
    weight            = var.use_spot ? 0 : 1
  }
  dynamic "capacity_provider_strategy" {
    for_each = var.use_spot ? [1] : []
    content {
      capacity_provider = "FARGATE_SPOT"
      weight            = 1
    }
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.subnet_ids
    security_groups  = [aws_security_group.workers.id]
    assign_public_ip = local.public_addresses
  }

  # Autoscaling sets desired_count.
  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_ecs_cluster_capacity_providers.this, aws_iam_role_policy.execution]
}

data "aws_iam_policy_document" "trust_ecs" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    # For tasks of this account only (confused deputy).
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:ecs:${local.region}:${local.account}:*"]
    }
  }
}

# Permissions of the worker's own code.
resource "aws_iam_role" "workers" {
  name                 = "${local.global_name}-workers"
  assume_role_policy   = local.trust_policy
  permissions_boundary = local.boundary

  # A name that changes must not leave running workers, or producers elsewhere, without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

data "aws_iam_policy_document" "trust_execution" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

# Permissions of ECS to start the worker.
resource "aws_iam_role" "execution" {
  name                 = "${local.global_name}-execute"
  assume_role_policy   = data.aws_iam_policy_document.trust_execution.json
  permissions_boundary = local.boundary

  # A name that changes must not leave running workers, or producers elsewhere, without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role_policy" "execution" {
  name   = "run-image"
  role   = aws_iam_role.execution.name
  policy = data.aws_iam_policy_document.run_image.json
}

# For operators: why workers start and stop.
data "aws_iam_policy_document" "look_at_workers" {
  statement {
    sid     = "LookAtWorkers"
    actions = ["ecs:DescribeServices", "ecs:DescribeTasks"]
    resources = [
      for kind in ["service", "task"] : "arn:${local.partition}:ecs:${local.region}:${local.account}:${kind}/${local.name}/*"
    ]
  }
  # ListTasks can be limited by a condition only.
  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html
  statement {
    sid       = "ListWorkers"
    actions   = ["ecs:ListTasks"]
    resources = ["*"]

    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = ["arn:${local.partition}:ecs:${local.region}:${local.account}:cluster/${local.name}"]
    }
  }
}

# A worker protects its long tasks from scale-in and deployments; see compute/ecs.py of the library.
data "aws_iam_policy_document" "protection" {
  statement {
    sid       = "ProtectItself"
    actions   = ["ecs:UpdateTaskProtection"]
    resources = ["arn:${local.partition}:ecs:${local.region}:${local.account}:task/${local.name}/*"]
  }
}

resource "aws_iam_role_policy" "protection" {
  name   = "protection"
  role   = aws_iam_role.workers.name
  policy = data.aws_iam_policy_document.protection.json
}

data "aws_iam_policy_document" "exec" {
  statement {
    sid = "OpenShell"
    actions = [
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "exec" {
  for_each = local.compute.enable_exec ? { this = true } : {}

  name   = "exec"
  role   = aws_iam_role.workers.name
  policy = data.aws_iam_policy_document.exec.json
}
