resource "aws_ecs_task_definition" "beat" {
  for_each = local.beat

  family                   = "${local.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.beat[each.key].arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([merge(local.containers[each.key], {
    name                   = "beat"
    command                = [local.contract.service, "beat"]
    readonlyRootFilesystem = true
  })])

  volume {
    name = "tmp"
  }
}

resource "aws_ecs_service" "beat" {
  for_each = local.beat

  name                    = each.key
  cluster                 = aws_ecs_cluster.this.id
  task_definition         = aws_ecs_task_definition.beat[each.key].arn
  desired_count           = local.capacity[each.key].min
  propagate_tags          = "SERVICE"
  enable_ecs_managed_tags = true

  # Stop before start, also when a task is unhealthy.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service_definition_parameters.html
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100
  # It would start a second task before it stops the first.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html
  availability_zone_rebalancing = "DISABLED"

  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    weight            = 1
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

  depends_on = [aws_ecs_cluster_capacity_providers.this, aws_iam_role_policy.execution]
}
