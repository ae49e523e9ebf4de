variable "broker" {
  description = <<-EOT
    The broker; every attribute is optional.
    engine_version: version of RabbitMQ, 4.2 or 4.3 (default 4.2). From 4.2 to 4.3 is an upgrade in place, and there is no
    way back. AWS applies patches by itself.
    instance_type: size of the broker's machines (default mq.m7g.medium, which is for tests, says AWS; production begins at
    mq.m7g.large).
    deployment_mode: SINGLE_INSTANCE (default), or CLUSTER_MULTI_AZ for three machines in as many zones as the subnets are
    in. A change replaces the broker, and its messages are lost.
    flower_image_tag: on ECS alone, the image of flower.Dockerfile in the service's repository (default: no Flower).
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
    error_message = "The broker's instance_type must begin with mq.m7g, the only kind that RabbitMQ 4 runs on."
  }
  validation {
    condition     = contains(["SINGLE_INSTANCE", "CLUSTER_MULTI_AZ"], try(var.broker.deployment_mode, "SINGLE_INSTANCE"))
    error_message = "The broker's deployment_mode must be SINGLE_INSTANCE or CLUSTER_MULTI_AZ."
  }
  validation {
    # https://docs.docker.com/reference/cli/docker/image/tag/
    condition     = can(regex("^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", try(var.broker.flower_image_tag, "")))
    error_message = "The tag must be up to 128 letters, digits, underscores, dots and hyphens, and begin with no dot or hyphen."
  }
}

locals {
  broker = merge(
    { engine_version = "4.2", instance_type = "mq.m7g.medium", deployment_mode = "SINGLE_INSTANCE", flower_image_tag = "" },
    var.broker,
  )
}

locals {
  # The broker is this environment's alone, and so are its queues.
  queue_name_prefix = ""
  queue_name_suffix = ""

  broker_environment = {
    BROKER_URL            = aws_mq_broker.this.instances[0].endpoints[0]
    BROKER_MANAGEMENT_URL = aws_mq_broker.this.instances[0].console_url
  }
  # By way of its first value, so that no worker starts before there is one.
  broker_secrets            = [{ arn = aws_secretsmanager_secret_version.broker.arn, prefix = "BROKER_", keys = ["username", "password"] }]
  broker_interface_services = ["secretsmanager", "monitoring"]

  # ARNs are built from names, not read from resources: so they are known in a plan, and tests can look at
  # whole policies before anything exists. A secret's ends with six characters of AWS's.
  # https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_iam-policies.html
  broker_secret_arns = ["arn:${local.partition}:secretsmanager:${local.region}:${local.account}:secret:${local.name}-broker-??????"]
  broker_arns        = ["arn:${local.partition}:mq:${local.region}:${local.account}:broker:${local.name}:b-*"]

  # What may be done at the broker is RabbitMQ's to say; AWS says who gets at the password. What starts
  # workers here hands it to them, and who sends or works elsewhere gets it for itself.
  broker_producer_statements = {
    ReadPassword = { actions = ["secretsmanager:GetSecretValue"], resources = local.broker_secret_arns }
  }
  # It cannot be limited to some metrics, but to those of one namespace.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html
  broker_worker_statements = merge(local.broker_producer_statements, {
    ReportQueues = {
      actions    = ["cloudwatch:PutMetricData"]
      resources  = ["*"]
      conditions = { "cloudwatch:namespace" = local.name }
    }
  })
  broker_operator_statements = merge(local.broker_producer_statements, {
    # Its id is AWS's, and a list cannot be limited to some brokers.
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonmq.html
    FindBroker   = { actions = ["mq:ListBrokers"], resources = ["*"] }
    LookAtBroker = { actions = ["mq:DescribeBroker"], resources = local.broker_arns }
  })
}

# Exchanges and queues are declared by the service.
resource "aws_mq_broker" "this" {
  # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-amazonmq-broker-encryptionoptions.html
  #checkov:skip=CKV_AWS_209:Its disks are encrypted with a key of AWS's, as RabbitMQ's brokers take no other.
  broker_name        = local.name
  engine_type        = "RabbitMQ"
  engine_version     = local.broker.engine_version
  host_instance_type = local.broker.instance_type
  deployment_mode    = local.broker.deployment_mode
  # AWS requires it, and patches in the weekly hours that it chooses when the broker is made.
  auto_minor_version_upgrade = true

  publicly_accessible = false
  subnet_ids          = local.broker.deployment_mode == "SINGLE_INSTANCE" ? [local.subnet_ids[0]] : local.subnet_ids
  # A broker keeps the groups it is made with: what may connect is changed by their rules.
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
    # AWS cannot change a user; see rabbitmq_password.sh.
    ignore_changes = [user]
  }
}

# A change waits for the weekly maintenance, or for somebody who reboots the broker.
resource "aws_mq_configuration" "this" {
  name           = local.name
  engine_type    = "RabbitMQ"
  engine_version = local.broker.engine_version
  # In milliseconds: one for all queues, so that none is taken back before its time.
  # https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/configurable-values.html
  data = "consumer_timeout = ${1000 * max(local.contract.queues[*].visibility_timeout_seconds...)}\n"
}

resource "aws_security_group" "broker" {
  name        = "${local.name}-broker"
  description = "Broker: workers, and whom the owner lets in"
  vpc_id      = local.vpc_id
}

# AMQP for work, HTTPS for the on-call commands; both with TLS, and nothing listens without.
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

# The password that the broker is made with stands in Terraform's state, as the provider can make none
# without. rabbitmq_password.sh changes it, at the broker and in the secret, and Terraform never learns the new one.
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
  # The name of a deleted secret stays taken for so long.
  recovery_window_in_days = var.protect_data ? 30 : 0
}

# Written when the broker is made, and neither read nor written again.
resource "aws_secretsmanager_secret_version" "broker" {
  secret_id                = aws_secretsmanager_secret.broker.id
  secret_string_wo         = jsonencode({ username = "service", password = terraform_data.first_password.output })
  secret_string_wo_version = 1
  # AWS drops versions without a label, and Terraform would then write this one again, over the current one.
  # https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html
  version_stages = ["AWSCURRENT", "FIRST"]

  lifecycle {
    ignore_changes       = [version_stages]
    replace_triggered_by = [aws_mq_broker.this.arn]
  }
}

# Whoever runs the workers may read the secret.
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
  description = "Where username and password at the broker are, as JSON."
  value       = aws_secretsmanager_secret.broker.arn
}

output "broker_security_group_id" {
  description = "Whatever else sends needs an ingress rule here for port 5671, and on-call commands one for port 443."
  value       = aws_security_group.broker.id
}
