output "results_security_group_id" {
  description = "Senders that wait for results need an ingress rule here, for port 6379."
  value       = module.service.results_security_group_id
}
