# The logs of every worker, whatever it runs on.

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

locals {
  log_group = "/${local.contract.service}/${var.environment}/workers"
}

resource "aws_cloudwatch_log_group" "workers" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = local.own_key
}
