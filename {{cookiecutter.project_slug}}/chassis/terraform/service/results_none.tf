variable "results" {
  description = "The result backend; this one takes no attributes."
  type        = any
  default     = {}

  validation {
    condition     = length(var.results) == 0
    error_message = "results takes no attributes."
  }
}

# Tasks return nothing, so nothing keeps it.
locals {
  results_environment       = {}
  results_look_statements   = {}
  results_read_statements   = {}
  results_worker_statements = {}
  results_gateway_services  = []
}
