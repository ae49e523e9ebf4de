output "environment" {
  description = "Environment variables of the service, for whatever else runs or calls it."
  value       = local.environment
}

output "policy_arns" {
  description = "Policies to attach to whoever sends (producer), works (worker) and is on call (operator)."
  value       = { for name, policy in aws_iam_policy.this : name => policy.arn }
}

output "image_repository" {
  description = "Where images are pushed to."
  value       = aws_ecr_repository.service.repository_url
}

output "dashboard_url" {
  description = "The dashboard."
  value       = "https://${local.region}.console.aws.amazon.com/cloudwatch/home?region=${local.region}#dashboards/dashboard/${local.name}"
}

output "alarm_topic_arn" {
  description = "The SNS topic of all alarms, for receivers and alarms of yours."
  value       = aws_sns_topic.alarms.arn
}

output "vpc_id" {
  description = "The VPC of the workers, for resources of yours."
  value       = local.vpc_id
}

output "subnet_ids" {
  description = "The subnets of the workers."
  value       = local.subnet_ids
}

output "workers_security_group_id" {
  description = "The security group of the workers, for rules of yours: what they may reach beside AWS, and what lets them in."
  value       = aws_security_group.workers.id
}
