output "broker_secret_arn" {
  description = "Where username and password at the broker are, as JSON."
  value       = module.service.broker_secret_arn
}

output "broker_security_group_id" {
  description = "Whatever else sends needs an ingress rule here for port 5671, and on-call commands one for port 443."
  value       = module.service.broker_security_group_id
}
