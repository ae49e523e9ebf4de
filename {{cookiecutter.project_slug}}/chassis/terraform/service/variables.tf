# What every service takes; options add `broker`, `compute` and `results`, beside what they are for.

variable "contract" {
  description = "The decoded contract.json: names, numbers and choices, which the service reads as well."
  type        = any
}

variable "environment" {
  description = "Which environment this is; part of every name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,10}$", var.environment))
    error_message = "The environment must be 1 to 11 lower-case letters and digits, beginning with a letter."
  }
}

variable "log_level" {
  description = "Least severity that workers log."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["DEBUG", "INFO", "WARNING", "ERROR"], var.log_level)
    error_message = "The log level must be DEBUG, INFO, WARNING or ERROR."
  }
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096], var.log_retention_days)
    error_message = "CloudWatch Logs keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731 or 1096 days."
  }
}

variable "kms_key_arn" {
  description = <<-EOT
    A KMS key of yours for everything that takes one; empty for the keys AWS manages, which cost nothing.
    Its policy must let cloudwatch.amazonaws.com use it, or no alarm arrives.
  EOT
  type        = string
  default     = ""

  validation {
    condition     = var.kms_key_arn == "" || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "The key must be named by its ARN, arn:aws:kms:<region>:<account>:key/<id>; aliases do not work across services."
  }
}

variable "protect_data" {
  description = "Refuse to delete results and images, even by `terraform destroy`."
  type        = bool
  default     = true
}

variable "runbook_url" {
  description = "Where the runbook can be read; alarms link its sections."
  type        = string
  default     = "docs/runbook.md"
}

variable "monthly_budget_usd" {
  description = "Warn when a month's costs of the tag `Service` are forecast to exceed this; 0 for no budget. Activate the tag for cost allocation first."
  type        = number
  default     = 0

  validation {
    condition     = var.monthly_budget_usd >= 0
    error_message = "The budget must not be negative."
  }
}
