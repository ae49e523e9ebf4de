# Flower, a web UI that shows workers and tasks and can revoke tasks and stop workers. Created only
# with flower_image_tag.
#
# It listens on localhost of its own container, which the network cannot reach. Operators open a
# session with flower_rabbitmq_ecs.sh, which IAM controls, and then log in with Flower's own
# password.

locals {
  flower          = local.broker.flower_image_tag == "" ? {} : { this = true }
  broker_sessions = local.broker.flower_image_tag != ""
}

resource "aws_ecs_task_definition" "flower" {
  for_each = local.flower

  family                   = "${local.name}-Flower"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.flower["this"].arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name        = "flower"
    image       = "${local.repository}:${local.broker.flower_image_tag}"
    essential   = true
    command     = ["celery", "--app=${local.contract.package}", "flower", "--address=127.0.0.1", "--port=5555"]
    environment = local.container_environment
    secrets     = concat([{ name = "FLOWER_BASIC_AUTH", valueFrom = aws_secretsmanager_secret.flower["this"].arn }], local.container_secrets)
    # The session agent writes files.
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-exec.html
    readonlyRootFilesystem = false
    linuxParameters        = { initProcessEnabled = true }
    healthCheck = {
      command     = ["CMD", "python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5555/healthcheck')"]
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
        awslogs-stream-prefix = "flower"
      }
    }
  }])
}

resource "aws_ecs_service" "flower" {
  for_each = local.flower

  # Cannot clash with a worker's service: names of workers are lower-case.
  name                    = "Flower"
  cluster                 = aws_ecs_cluster.this.id
  task_definition         = aws_ecs_task_definition.flower["this"].arn
  desired_count           = 1
  enable_execute_command  = true
  propagate_tags          = "SERVICE"
  enable_ecs_managed_tags = true

  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    weight            = 1
  }

  # No circuit breaker: Flower cannot start until its password is set, and ECS has to keep trying.

  # Like workers, it can connect to the broker and to AWS, and nothing can connect to it.
  network_configuration {
    subnets          = local.subnet_ids
    security_groups  = [aws_security_group.workers.id]
    assign_public_ip = local.public_addresses
  }

  depends_on = [
    aws_ecs_cluster_capacity_providers.this,
    aws_iam_role_policy.execution,
    aws_iam_role_policy.flower_exec,
    aws_iam_role_policy.read_flower_password,
  ]
}

# Set the value by hand, see docs/delivery.md: Terraform would store it in its state, which others
# can read. The pipeline's permissions for the broker's secret match this name as well.
resource "aws_secretsmanager_secret" "flower" {
  for_each = local.flower

  name                    = "${local.name}-broker-flower"
  description             = "Flower's login, as name:password"
  kms_key_id              = local.own_key
  recovery_window_in_days = var.protect_data ? 30 : 0
}

data "aws_iam_policy_document" "read_flower_password" {
  statement {
    sid       = "ReadFlowerPassword"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = ["arn:${local.partition}:secretsmanager:${local.region}:${local.account}:secret:${local.name}-broker-flower-??????"]
  }

  dynamic "statement" {
    for_each = local.own_key[*]
    content {
      sid       = "DecryptFlowerPassword"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role_policy" "read_flower_password" {
  for_each = local.flower

  name   = "read-flower-password"
  role   = aws_iam_role.execution.name
  policy = data.aws_iam_policy_document.read_flower_password.json
}

# The container needs no permissions except those for sessions.
resource "aws_iam_role" "flower" {
  for_each = local.flower

  name                 = "${local.global_name}-flower"
  assume_role_policy   = data.aws_iam_policy_document.trust_ecs.json
  permissions_boundary = local.boundary

  # A name that changes must not leave running workers, or producers elsewhere, without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role_policy" "flower_exec" {
  for_each = local.flower

  name   = "exec"
  role   = aws_iam_role.flower["this"].name
  policy = data.aws_iam_policy_document.exec.json
}

# For users of Flower, who can revoke tasks: the session and the password.
data "aws_iam_policy_document" "flower" {
  source_policy_documents = [
    data.aws_iam_policy_document.look_at_workers.json,
    data.aws_iam_policy_document.read_flower_password.json,
  ]

  # Forwards a port only; does not open a shell.
  # https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-sessiondocumentaccesscheck.html
  statement {
    sid     = "ForwardPort"
    actions = ["ssm:StartSession"]
    resources = [
      "arn:${local.partition}:ecs:${local.region}:${local.account}:task/${local.name}/*",
      "arn:${local.partition}:ssm:${local.region}::document/AWS-StartPortForwardingSession",
    ]

    condition {
      test     = "BoolIfExists"
      variable = "ssm:SessionDocumentAccessCheck"
      values   = ["true"]
    }
  }
  statement {
    sid       = "EndOwnSessions"
    actions   = ["ssm:ResumeSession", "ssm:TerminateSession"]
    resources = ["arn:${local.partition}:ssm:${local.region}:${local.account}:session/&{aws:userid}-*"]
  }
}

resource "aws_iam_policy" "flower" {
  for_each = local.flower

  name        = "${local.global_name}-flower"
  description = "Who may look at Flower of ${local.name}, and so cancel tasks"
  policy      = data.aws_iam_policy_document.flower.json

  # A name that changes must not leave running workers, or producers elsewhere, without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

output "flower_policy_arn" {
  description = "ARN of the IAM policy for users of Flower; null without Flower."
  value       = one(values(aws_iam_policy.flower)[*].arn)
}
