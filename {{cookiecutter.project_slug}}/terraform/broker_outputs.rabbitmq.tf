output "broker_secret_arn" {
  description = "Secret with the broker's username and password, as JSON."
  value       = module.service.broker_secret_arn
}

output "broker_security_group_id" {
  description = "Security group of the broker. Other producers need an ingress rule for port 5671, on-call commands one for port 443."
  value       = module.service.broker_security_group_id
}
