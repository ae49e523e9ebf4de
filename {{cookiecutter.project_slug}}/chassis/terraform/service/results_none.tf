variable "results" {
  description = "No result backend; takes no attributes."
  type        = any
  default     = {}

  validation {
    condition     = length(var.results) == 0
    error_message = "results takes no attributes."
  }
}

# Results of tasks are not stored.
locals {
  results_environment       = {}
  results_look_statements   = {}
  results_read_statements   = {}
  results_worker_statements = {}
  results_alarm_arns        = []
}
