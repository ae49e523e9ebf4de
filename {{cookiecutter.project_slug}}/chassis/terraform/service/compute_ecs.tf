# One ECS service per queue, so that urgent tasks never wait behind slow ones, and each queue has
# its own limits, size and scaling.

variable "compute" {
  description = <<-EOT
    The compute of the workers; every attribute is optional.
    cpu_units: CPU units of one worker (default 512); 1024 are one vCPU.
    memory_mib: memory of one worker in MiB (default 1024); a worker runs one process more than the
    contract's concurrency.
    enable_exec: allow a shell in workers by ECS Exec, which needs a writable file system (default
    false).
  EOT
  type        = any
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.compute), ["cpu_units", "memory_mib", "enable_exec"])) == 0
    error_message = "compute takes cpu_units, memory_mib and enable_exec."
  }
  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], try(var.compute.cpu_units, 512))
    error_message = "Fargate offers 256, 512, 1024, 2048, 4096, 8192 and 16384 CPU units."
  }
  validation {
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html
    condition = (
      try(var.compute.memory_mib, 1024) >= 2 * try(var.compute.cpu_units, 512) &&
      try(var.compute.memory_mib, 1024) <= 8 * try(var.compute.cpu_units, 512)
    )
    error_message = "Fargate offers 2 to 8 MiB of memory per CPU unit."
  }
}

locals {
  compute = merge({ cpu_units = 512, memory_mib = 1024, enable_exec = false }, var.compute)
}

locals {
  compute_services = concat(["ecr.api", "ecr.dkr", "logs"], local.compute.enable_exec || local.broker_sessions ? ["ssmmessages"] : [])
  secret_reader    = aws_iam_role.execution

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

  running_workers_metrics = {
    for name in keys(local.queues) : name => {
      namespace  = "ECS/ContainerInsights"
      name       = "RunningTaskCount"
      dimensions = { ClusterName = local.name, ServiceName = name }
    }
  }
  utilization_metrics = merge([
    for name in keys(local.queues) : {
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

resource "aws_ecs_task_definition" "worker" {
  for_each = local.queues

  family                   = "${local.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = local.compute.cpu_units
  memory                   = local.compute.memory_mib
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.workers.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name                   = "worker"
    image                  = local.image
    essential              = true
    command                = [local.contract.service, "worker", each.key]
    environment            = local.container_environment
    secrets                = local.container_secrets
    stopTimeout            = local.contract.stop_timeout_seconds
    readonlyRootFilesystem = !local.compute.enable_exec
    # On Fargate only root can write to it, unless the image declares it as a VOLUME.
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/bind-mounts.html
    mountPoints     = [{ sourceVolume = "tmp", containerPath = "/tmp", readOnly = false }]
    linuxParameters = { initProcessEnabled = true }
    healthCheck = {
      command     = ["CMD", local.contract.service, "health", each.key]
      interval    = 30
      timeout     = 10
      retries     = 3
      startPeriod = 60
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.workers.name
        awslogs-region        = local.region
        awslogs-stream-prefix = each.key
        # Tasks must not block when logs cannot be delivered.
        mode            = "non-blocking"
        max-buffer-size = "4m"
      }
    }
  }])

  volume {
    name = "tmp"
  }
}

resource "aws_ecs_service" "worker" {
  for_each = local.queues

  name                    = each.key
  cluster                 = aws_ecs_cluster.this.id
  task_definition         = aws_ecs_task_definition.worker[each.key].arn
  desired_count           = local.workers[each.key].min
  enable_execute_command  = local.compute.enable_exec
  propagate_tags          = "SERVICE"
  enable_ecs_managed_tags = true
  # Without this, a change of use_spot replaces the service.
  force_new_deployment = true

  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    base              = var.use_spot ? each.value.workers_min : 0
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
    subnets         = local.subnet_ids
    security_groups = [aws_security_group.workers.id]
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
  name               = "${local.name}-workers"
  assume_role_policy = data.aws_iam_policy_document.trust_ecs.json
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
  name               = "${local.name}-execution"
  assume_role_policy = data.aws_iam_policy_document.trust_execution.json
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

# A busy worker protects itself from scale-in; see protection.py.
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
