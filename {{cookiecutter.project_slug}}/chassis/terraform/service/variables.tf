# Inputs of every service; `broker`, `compute` and `results` are declared in the options' own
# files.

variable "contract" {
  description = "The decoded contract.json, which the service reads as well."
  type        = any

  # Here and not among the rules: without this section no other value could be read.
  validation {
    condition     = can(var.contract.queue_defaults)
    error_message = "contract.json breaks 1 rule:\n  queue_defaults is missing: this contract is of version 1, which repeated all numbers in every queue\n      given: null\n      try:   `PYTHONPATH=chassis python3 -m celery_aws.contract.convert contract.json`"
  }
}

variable "environment" {
  description = "Name of the environment, such as staging; part of every resource's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,10}$", var.environment))
    error_message = "The environment must be 1 to 11 lower-case letters and digits, beginning with a letter."
  }
}

variable "use_spot" {
  description = "Run workers above their `min` on Spot capacity, which costs less and is reclaimed at two minutes' notice."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = <<-EOT
    ARN of your KMS key, for queues, results, secrets, images, logs and the alarms' topic; empty for
    AWS managed keys, which are free.
    Its policy must allow cloudwatch.amazonaws.com and budgets.amazonaws.com to use it, or alarms and
    budget notifications are not delivered, and
    logs.<region>.amazonaws.com, or the log group cannot be created.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
  EOT
  type        = string
  default     = ""

  validation {
    condition     = var.kms_key_arn == "" || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "The KMS key needs an ARN, arn:aws:kms:<region>:<account>:key/<id>; aliases do not work across services."
  }
}

variable "permissions_boundary_arn" {
  description = "ARN of the IAM policy that limits the permissions of every role and user that is created; empty for none."
  type        = string
  default     = ""

  validation {
    condition     = var.permissions_boundary_arn == "" || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "The permissions boundary needs the ARN of a policy, arn:aws:iam::<account>:policy/<name>."
  }
}

variable "alarm_actions" {
  description = "ARNs that alarms notify besides the service's own topic, such as an SNS topic that leads to Slack or PagerDuty. Its policy must allow CloudWatch to publish."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_actions : can(regex("^arn:[a-z-]+:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:.+$", arn))])
    error_message = "Each of alarm_actions must be an ARN, such as arn:aws:sns:<region>:<account>:<topic>."
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
