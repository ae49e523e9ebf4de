# Outputs for operators and other stacks; `make plan` reads image_tag.

output "alarm_topic_arn" {
  description = "SNS topic of all alarms."
  value       = module.service.alarm_topic_arn
}

output "credentials" {
  description = "Role or user that has the worker's permissions."
  value       = module.service.credentials
}

output "dashboard_url" {
  description = "URL of the CloudWatch dashboard."
  value       = module.service.dashboard_url
}

output "endpoints_security_group_id" {
  description = "Security group of the VPC endpoints, for services that share the network; null without endpoints."
  value       = module.service.endpoints_security_group_id
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

output "subnet_ids" {
  description = "Subnets of the workers, for services that share the network."
  value       = module.service.subnet_ids
}

output "vpc_id" {
  description = "VPC of the workers, for services that share the network."
  value       = module.service.vpc_id
}

output "workers_security_group_id" {
  description = "Security group of the workers, for ingress rules of what they connect to."
  value       = module.service.workers_security_group_id
}
