variable "broker" {
  description = <<-EOT
    The broker; every attribute is optional.
    engine_version: RabbitMQ version, 4.2 or 4.3 (default 4.2). 4.2 is upgraded to 4.3 in place,
    and cannot be downgraded. AWS applies patch versions automatically.
    instance_type: broker instance type (default mq.m7g.medium, which AWS recommends for tests; use
    at least mq.m7g.large in production).
    deployment_mode: SINGLE_INSTANCE (default), or CLUSTER_MULTI_AZ for three nodes, in the
    Availability Zones of the subnets. A change replaces the broker and loses its messages.
    flower_image_tag: ECS only; tag of an image built from flower.Dockerfile, in the service's
    repository (default: no Flower).
  EOT
  type        = any
  default     = {}

  validation {
    condition = length(setsubtract(keys(var.broker), concat(
      ["engine_version", "instance_type", "deployment_mode"],
      var.contract.compute == "ecs" ? ["flower_image_tag"] : [],
    ))) == 0
    error_message = "broker takes engine_version, instance_type and deployment_mode, and on ECS flower_image_tag."
  }
  validation {
    # https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-version-management.html
    condition     = contains(["4.2", "4.3"], try(var.broker.engine_version, "4.2"))
    error_message = "The broker's engine_version must be 4.2 or 4.3."
  }
  validation {
    # https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-sizing-guidelines.html
    condition     = startswith(try(var.broker.instance_type, "mq.m7g.medium"), "mq.m7g.")
    error_message = "The broker's instance_type must begin with mq.m7g., the only instance family that supports RabbitMQ 4."
  }
  validation {
    condition     = contains(["SINGLE_INSTANCE", "CLUSTER_MULTI_AZ"], try(var.broker.deployment_mode, "SINGLE_INSTANCE"))
    error_message = "The broker's deployment_mode must be SINGLE_INSTANCE or CLUSTER_MULTI_AZ."
  }
  validation {
    # https://docs.docker.com/reference/cli/docker/image/tag/
    condition     = can(regex("^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", try(var.broker.flower_image_tag, "")))
    error_message = "The broker's flower_image_tag must be up to 128 letters, digits, underscores, dots and hyphens, and must not begin with a dot or hyphen."
  }
}

locals {
  broker = merge(
    { engine_version = "4.2", instance_type = "mq.m7g.medium", deployment_mode = "SINGLE_INSTANCE", flower_image_tag = "" },
    var.broker,
  )
}

locals {
  # Each environment has its own broker, so names of queues need no prefix.
  broker_queues = {
    for queue in local.effective_queues : queue.name => {
      queue_name       = queue.name
      dead_letter_name = "${queue.name}-dlq"
      has_metrics      = true
    }
  }

  broker_environment = {
    BROKER_URL            = aws_mq_broker.this.instances[0].endpoints[0]
    BROKER_MANAGEMENT_URL = aws_mq_broker.this.instances[0].console_url
  }
  # Refers to the secret's first version, so that no worker starts before it exists.
  broker_secrets            = [{ arn = aws_secretsmanager_secret_version.broker.arn, prefix = "BROKER_", keys = ["username", "password"] }]
  broker_interface_services = ["secretsmanager", "monitoring"]

  # ARNs are built from names instead of read from resources, so that plans and tests show complete
  # policies. AWS adds a suffix of six characters to a secret's name.
  # https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_iam-policies.html
  broker_secret_arns = ["arn:${local.partition}:secretsmanager:${local.region}:${local.account}:secret:${local.name}-broker-??????"]
  broker_arns        = ["arn:${local.partition}:mq:${local.region}:${local.account}:broker:${local.name}:b-*"]

  # RabbitMQ controls access to queues; IAM controls access to the password. ECS or the instance
  # gives the password to the workers here; producers and workers elsewhere read it themselves.
  broker_producer_statements = {
    ReadPassword = { actions = ["secretsmanager:GetSecretValue"], resources = local.broker_secret_arns }
  }
  # This action can be limited to a namespace, not to some metrics.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html
  broker_worker_statements = merge(local.broker_producer_statements, {
    ReportQueues = {
      actions    = ["cloudwatch:PutMetricData"]
      resources  = ["*"]
      conditions = { "cloudwatch:namespace" = local.name }
    }
  })
  broker_operator_statements = merge(local.broker_producer_statements, {
    # AWS assigns the broker's id, and ListBrokers cannot be limited to some brokers.
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonmq.html
    FindBroker   = { actions = ["mq:ListBrokers"], resources = ["*"] }
    LookAtBroker = { actions = ["mq:DescribeBroker"], resources = local.broker_arns }
  })
}

# The service declares exchanges and queues.
# A change that Amazon MQ cannot make, such as other subnets, would replace the broker and delete all
# messages, so prevent_destroy fails the plan.
resource "aws_mq_broker" "this" { # docs/deleting.md says how to delete a broker
  # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-amazonmq-broker-encryptionoptions.html
  #checkov:skip=CKV_AWS_209:RabbitMQ brokers support AWS owned keys only.
  broker_name        = local.name
  engine_type        = "RabbitMQ"
  engine_version     = local.broker.engine_version
  host_instance_type = local.broker.instance_type
  deployment_mode    = local.broker.deployment_mode
  # Required by AWS, which applies patches in a weekly maintenance window that it chooses.
  auto_minor_version_upgrade = true

  publicly_accessible = false
  subnet_ids          = local.broker.deployment_mode == "SINGLE_INSTANCE" ? [local.subnet_ids[0]] : local.subnet_ids
  # A broker's security groups cannot be changed; change their rules instead.
  security_groups = [aws_security_group.broker.id]

  configuration {
    id       = aws_mq_configuration.this.id
    revision = aws_mq_configuration.this.latest_revision
  }

  user {
    username = "service"
    password = sensitive(terraform_data.first_password.output)
  }

  logs {
    general = true
  }

  lifecycle {
    prevent_destroy = true
    # Amazon MQ cannot change users of RabbitMQ; see rabbitmq_password.sh.
    ignore_changes = [user]
  }
}

# Changes apply in the weekly maintenance window, or when the broker is rebooted.
resource "aws_mq_configuration" "this" {
  name           = local.name
  engine_type    = "RabbitMQ"
  engine_version = local.broker.engine_version
  # In milliseconds. It applies to all queues, so it is the longest visibility timeout.
  # https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/configurable-values.html
  data = "consumer_timeout = ${1000 * max(local.effective_queues[*].visibility_timeout_seconds...)}\n"
}

resource "aws_security_group" "broker" {
  name        = "${local.name}-broker"
  description = "Broker: workers, and whom the owner lets in"
  vpc_id      = local.vpc_id
}

# AMQP for workers, HTTPS for the operator commands; the broker accepts TLS only.
resource "aws_vpc_security_group_ingress_rule" "broker" {
  for_each = { amqps = 5671, https = 443 }

  security_group_id            = aws_security_group.broker.id
  description                  = "Workers to the broker"
  referenced_security_group_id = aws_security_group.workers.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_egress_rule" "workers_to_broker" {
  security_group_id            = aws_security_group.workers.id
  description                  = "Workers to the broker"
  referenced_security_group_id = aws_security_group.broker.id
  ip_protocol                  = "tcp"
  from_port                    = 5671
  to_port                      = 5671
}

# The provider cannot create a broker without storing its first password in Terraform's state.
# rabbitmq_password.sh changes the password at the broker and in the secret; the new one is not in
# the state.
resource "terraform_data" "first_password" {
  input = sensitive(uuid())

  lifecycle {
    ignore_changes = [input]
  }
}

resource "aws_secretsmanager_secret" "broker" {
  name        = "${local.name}-broker"
  description = "Username and password at the broker, as JSON"
  kms_key_id  = local.own_key
  # The name cannot be used again during this time.
  recovery_window_in_days = var.protect_data ? 30 : 0
}

# Written when the broker is created; Terraform neither reads nor updates it afterwards.
resource "aws_secretsmanager_secret_version" "broker" {
  secret_id                = aws_secretsmanager_secret.broker.id
  secret_string_wo         = jsonencode({ username = "service", password = terraform_data.first_password.output })
  secret_string_wo_version = 1
  # AWS deletes versions without a label; Terraform would then create this one again and replace
  # the current one.
  # https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html
  version_stages = ["AWSCURRENT", "FIRST"]

  lifecycle {
    ignore_changes       = [version_stages]
    replace_triggered_by = [aws_mq_broker.this.arn]
  }
}

# Lets ECS, or the instance, read the secret.
data "aws_iam_policy_document" "read_broker_password" {
  statement {
    sid       = "ReadBrokerPassword"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.broker.arn]
  }

  dynamic "statement" {
    for_each = local.own_key[*]
    content {
      sid       = "DecryptBrokerPassword"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role_policy" "read_broker_password" {
  name   = "read-broker-password"
  role   = local.secret_reader.name
  policy = data.aws_iam_policy_document.read_broker_password.json
}

output "queues" {
  description = "Names of every queue and its dead-letter queue, in the virtual host /."
  value = {
    for name, queue in local.queues : name => {
      queue        = queue.queue_name
      dead_letters = queue.dead_letter_name
    }
  }
}

output "broker_secret_arn" {
  description = "ARN of the secret with the broker's username and password, as JSON."
  value       = aws_secretsmanager_secret.broker.arn
}

output "broker_security_group_id" {
  description = "The security group of the broker. Other producers need an ingress rule for port 5671, operator commands one for port 443."
  value       = aws_security_group.broker.id
}
