# What tasks need of their own: environment variables, secrets and permissions.

variable "environment_variables" {
  description = "Environment variables for the workers, by name."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, value in var.environment_variables : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) && !strcontains(value, "\n")])
    error_message = "Environment variables need a name of letters, digits and underscores, and a value without line breaks."
  }
  validation {
    condition     = length(setintersection(keys(var.environment_variables), keys(local.service_environment))) == 0
    error_message = "The service sets these environment variables itself: ${join(", ", setintersection(keys(var.environment_variables), keys(local.service_environment)))}."
  }
}

variable "secrets" {
  description = "Secrets for the workers: ARNs of Secrets Manager secrets or SSM parameters, by the name of the environment variable. Values must not contain line breaks."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([
      for name, arn in var.secrets : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) &&
      can(regex("^arn:[a-z-]+:(secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^: ]+|ssm:[a-z0-9-]+:[0-9]{12}:parameter/[^: ]+)$", arn))
    ])
    error_message = "Secrets need a complete ARN, arn:aws:secretsmanager:<region>:<account>:secret:<name> or arn:aws:ssm:<region>:<account>:parameter/<name>."
  }
  validation {
    condition     = length(setintersection(keys(var.secrets), concat(keys(local.service_environment), keys(var.environment_variables)))) == 0
    error_message = "These environment variables are already set: ${join(", ", setintersection(keys(var.secrets), concat(keys(local.service_environment), keys(var.environment_variables))))}."
  }
}

variable "secrets_kms_key_arns" {
  description = "ARNs of your KMS keys that encrypt those secrets; empty for AWS managed keys."
  type        = list(string)
  default     = []
}

variable "task_policy_json" {
  description = "An IAM policy in JSON with additional permissions for tasks, such as the output of `aws_iam_policy_document`; empty for none."
  type        = string
  default     = ""
}

locals {
  # The services that need a VPC endpoint if the network has no internet access.
  # Both, because the ARN of a secret that does not exist yet is unknown.
  task_interface_services = length(var.secrets) > 0 ? ["secretsmanager", "ssm"] : []
}

# Secrets are read by ECS, or on EC2 by a script on the instance, whose role the worker shares.
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
