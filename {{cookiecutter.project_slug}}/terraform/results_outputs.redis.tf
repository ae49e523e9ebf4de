output "results_security_group_id" {
  description = "Security group of Redis. Producers that wait for results need an ingress rule for port 6379."
  value       = module.service.results_security_group_id
}
