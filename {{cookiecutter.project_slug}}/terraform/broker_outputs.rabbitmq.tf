output "broker_secret_arn" {
  description = "Secret with the broker's username and password, as JSON."
  value       = module.service.broker_secret_arn
}

output "broker_security_group_id" {
  description = "Security group of the broker, for ingress rules: producers use port 5671, on-call commands 443."
  value       = module.service.broker_security_group_id
}
