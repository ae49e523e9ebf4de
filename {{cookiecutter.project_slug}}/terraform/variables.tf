# Variables that differ between environments; environments/ has the values. The module documents and validates them.

variable "environment" {
  description = "Name of the environment; part of every resource name."
  type        = string
}

# No default: with an empty tag, a plan would stop all workers. `make plan` passes the deployed tag.
variable "image_tag" {
  description = "Tag of the image that workers run; empty until the first image is pushed."
  type        = string
}

variable "alarm_actions" {
  description = "ARNs that alarms notify besides the service's own SNS topic."
  type        = list(string)
  default     = []
}

variable "architecture" {
  description = "CPU architecture of the workers: ARM64 or X86_64."
  type        = string
  default     = "ARM64"
}

variable "broker" {
  description = "Attributes of the broker."
  type        = any
  default     = {}
}

variable "compute" {
  description = "Attributes of the workers' compute resources. Their size is in contract.json."
  type        = any
  default     = {}
}

variable "results" {
  description = "Attributes of the result backend."
  type        = any
  default     = {}
}

variable "image_repository" {
  description = "URL of an existing ECR repository for the image; empty to create one."
  type        = string
  default     = ""
}

variable "kms_key_arn" {
  description = "ARN of a customer managed KMS key for all encrypted resources; empty for keys that AWS manages."
  type        = string
  default     = ""
}

variable "log_level" {
  description = "Minimum level that workers log."
  type        = string
  default     = "INFO"
}

variable "log_retention_days" {
  description = "Retention of logs, in days."
  type        = number
  default     = 30
}

variable "monthly_budget_usd" {
  description = "Alert when the month's forecast cost exceeds this; 0 for no budget."
  type        = number
  default     = 0
}

variable "network" {
  description = "Attributes of the network: the way to the internet, an existing VPC, further connections."
  type        = any
  default     = {}
}

variable "permissions_boundary_arn" {
  description = "ARN of the permissions boundary of all roles and users; empty for none."
  type        = string
  default     = ""
}

variable "protect_data" {
  description = "Prevent the deletion of results and images, also by `terraform destroy`."
  type        = bool
  default     = true
}

variable "runbook_url" {
  description = "URL of the runbook; alarms link to its sections."
  type        = string
  default     = "docs/runbook.md"
}

variable "use_spot" {
  description = "Run workers above their `min` on Spot capacity."
  type        = bool
  default     = false
}
