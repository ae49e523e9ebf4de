# What people and other stacks read; image_tag is read by `make plan`.

output "credentials" {
  description = "Who holds the worker's permissions."
  value       = module.service.credentials
}

output "dashboard_url" {
  description = "The dashboard."
  value       = module.service.dashboard_url
}

output "environment" {
  description = "Environment variables of the service, for whatever else runs or calls it."
  value       = module.service.environment
}

output "image_repository" {
  description = "Where images are pushed to."
  value       = module.service.image_repository
}

output "image_tag" {
  description = "Image that workers were given last, which the next plan keeps."
  value       = module.service.image_tag
}

output "policy_arns" {
  description = "Policies to attach to whoever sends (producer), works (worker) and is on call (operator)."
  value       = module.service.policy_arns
}

output "queues" {
  description = "Names of every queue and its dead-letter queue."
  value       = module.service.queues
}
