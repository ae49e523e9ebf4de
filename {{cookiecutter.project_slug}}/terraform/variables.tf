# What differs between environments; environments/ has the values. The module says more about each, and checks them.

variable "environment" {
  description = "Which environment this is; part of every name."
  type        = string
}

# It has no default: a plan that forgot it would stop all workers. `make plan` knows what is deployed.
variable "image_tag" {
  description = "Image that workers run; empty until the first is pushed."
  type        = string
}

variable "architecture" {
  description = "Processors that workers run on, ARM64 or X86_64."
  type        = string
  default     = "ARM64"
}

variable "broker" {
  description = "Attributes of the broker."
  type        = any
  default     = {}
}

variable "compute" {
  description = "Attributes of what workers run on, such as its size."
  type        = any
  default     = {}
}

variable "results" {
  description = "Attributes of the result backend."
  type        = any
  default     = {}
}

variable "kms_key_arn" {
  description = "A KMS key of yours for everything that takes one; empty for the keys AWS manages."
  type        = string
  default     = ""
}

variable "log_level" {
  description = "Least severity that workers log."
  type        = string
  default     = "INFO"
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
}

variable "monthly_budget_usd" {
  description = "Warn when the forecast of a month exceeds this; 0 for no budget."
  type        = number
  default     = 0
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

variable "subnet_ids" {
  description = "Subnets of an existing VPC."
  type        = list(string)
  default     = []
}

variable "use_spot" {
  description = "Run workers above workers_min on spare capacity."
  type        = bool
  default     = false
}

variable "vpc_cidr" {
  description = "Addresses of the VPC that is created unless vpc_id names one."
  type        = string
  default     = "10.0.0.0/22"
}

variable "vpc_id" {
  description = "An existing VPC; empty to create one."
  type        = string
  default     = ""
}
