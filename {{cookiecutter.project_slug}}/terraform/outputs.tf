# Outputs for operators and other stacks; `make plan` reads image_tag.

output "credentials" {
  description = "Role or user that has the worker's permissions."
  value       = module.service.credentials
}

output "dashboard_url" {
  description = "URL of the CloudWatch dashboard."
  value       = module.service.dashboard_url
}

output "environment" {
  description = "Environment variables of the service, for other producers and workers."
  value       = module.service.environment
}

output "image_repository" {
  description = "Repository that images are pushed to."
  value       = module.service.image_repository
}

output "image_tag" {
  description = "Tag of the deployed image, which the next plan keeps."
  value       = module.service.image_tag
}

output "policy_arns" {
  description = "IAM policies to attach to producers, workers and operators."
  value       = module.service.policy_arns
}

output "queues" {
  description = "Name of each queue and of its dead-letter queue."
  value       = module.service.queues
}
