# Tasks return nothing, so nothing keeps it.
locals {
  results_environment       = {}
  results_look_statements   = {}
  results_read_statements   = {}
  results_worker_statements = {}
  results_gateway_services  = []
}
