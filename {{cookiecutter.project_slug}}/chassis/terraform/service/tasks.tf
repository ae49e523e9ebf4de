# What tasks need of their own: environment variables, secrets and permissions.

variable "environment_variables" {
  description = "Environment variables for the workers, by name."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, value in var.environment_variables : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) && !strcontains(value, "\n")])
    error_message = "An environment variable has a name of letters, digits and underscores, and a value of one line."
  }
  validation {
    condition     = length(setintersection(keys(var.environment_variables), keys(local.service_environment))) == 0
    error_message = "These are the service's own: ${join(", ", setintersection(keys(var.environment_variables), keys(local.service_environment)))}."
  }
}

variable "secrets" {
  description = "Secrets for the workers, of one line each: the ARN of a Secrets Manager secret or of an SSM parameter, by the name of its environment variable."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([
      for name, arn in var.secrets : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) &&
      can(regex("^arn:[a-z-]+:(secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^: ]+|ssm:[a-z0-9-]+:[0-9]{12}:parameter/[^: ]+)$", arn))
    ])
    error_message = "A secret is named by its whole ARN, arn:aws:secretsmanager:<region>:<account>:secret:<name> or arn:aws:ssm:<region>:<account>:parameter/<name>."
  }
  validation {
    condition     = length(setintersection(keys(var.secrets), concat(keys(local.service_environment), keys(var.environment_variables)))) == 0
    error_message = "These are set already: ${join(", ", setintersection(keys(var.secrets), concat(keys(local.service_environment), keys(var.environment_variables))))}."
  }
}

variable "secrets_kms_key_arns" {
  description = "KMS keys of yours that encrypt those secrets; none for the keys AWS manages."
  type        = list(string)
  default     = []
}

variable "task_policy_json" {
  description = "An IAM policy with what tasks may do beside the service's own work, as `aws_iam_policy_document` makes it; empty for nothing."
  type        = string
  default     = ""
}

locals {
  # Where each is read from, in a network without a way to the internet.
  task_interface_services = distinct([for arn in values(var.secrets) : split(":", arn)[2]])
}

# For what starts a worker: ECS, or a script on a machine, which has the same role as the worker there.
data "aws_iam_policy_document" "read_task_secrets" {
  for_each = length(var.secrets) > 0 ? { this = true } : {}

  statement {
    sid       = "ReadSecrets"
    actions   = ["secretsmanager:GetSecretValue", "ssm:GetParameter", "ssm:GetParameters"]
    resources = values(var.secrets)
  }

  dynamic "statement" {
    for_each = length(var.secrets_kms_key_arns) > 0 ? [var.secrets_kms_key_arns] : []
    content {
      sid       = "DecryptSecrets"
      actions   = ["kms:Decrypt"]
      resources = statement.value
    }
  }
}

resource "aws_iam_role_policy" "read_task_secrets" {
  for_each = data.aws_iam_policy_document.read_task_secrets

  name   = "read-task-secrets"
  role   = local.secret_reader.name
  policy = each.value.json
}
