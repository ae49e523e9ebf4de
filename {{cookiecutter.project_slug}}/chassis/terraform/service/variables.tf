# Inputs of every service; `broker`, `compute` and `results` are declared in the options' own
# files.

variable "contract" {
  description = "The decoded contract.json, which the service reads as well."
  type        = any
}

variable "environment" {
  description = "Name of the environment, such as staging; part of every resource's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,10}$", var.environment))
    error_message = "The environment must be 1 to 11 lower-case letters and digits, beginning with a letter."
  }
}

variable "log_level" {
  description = "Minimum level of the workers' logs."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["DEBUG", "INFO", "WARNING", "ERROR"], var.log_level)
    error_message = "The log level must be DEBUG, INFO, WARNING or ERROR."
  }
}

variable "log_retention_days" {
  description = "Retention of logs in days."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096], var.log_retention_days)
    error_message = "CloudWatch Logs keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731 or 1096 days."
  }
}

variable "kms_key_arn" {
  description = <<-EOT
    ARN of your KMS key, for every resource that supports one; empty for AWS managed keys, which
    are free.
    Its policy must allow cloudwatch.amazonaws.com to use it, or alarms are not delivered.
  EOT
  type        = string
  default     = ""

  validation {
    condition     = var.kms_key_arn == "" || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "The KMS key needs an ARN, arn:aws:kms:<region>:<account>:key/<id>; aliases do not work across services."
  }
}

variable "protect_data" {
  description = "Refuse to delete results and images, even by `terraform destroy`."
  type        = bool
  default     = true
}

variable "runbook_url" {
  description = "URL of the runbook; alarms link its sections."
  type        = string
  default     = "docs/runbook.md"
}

variable "monthly_budget_usd" {
  description = "Notify when a month's forecast costs of the tag `Service` exceed this; 0 for no budget. Activate the cost allocation tag first."
  type        = number
  default     = 0

  validation {
    condition     = var.monthly_budget_usd >= 0
    error_message = "The monthly budget must be 0 or more."
  }
}
