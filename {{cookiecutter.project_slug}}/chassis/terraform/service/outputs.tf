output "environment" {
  description = "Environment variables of the service, for other programs that run or call it."
  value       = local.environment
}

output "policy_arns" {
  description = "ARNs of the IAM policies for producers, workers and operators, by these names."
  value       = { for name, policy in aws_iam_policy.this : name => policy.arn }
}

output "image_repository" {
  description = "URL of the ECR repository of the workers' image."
  value       = local.repository
}

output "dashboard_url" {
  description = "URL of the CloudWatch dashboard."
  value       = "https://${local.region}.console.aws.amazon.com/cloudwatch/home?region=${local.region}#dashboards/dashboard/${local.global_name}"
}

output "alarm_topic_arn" {
  description = "The SNS topic of all alarms; add your own subscriptions and alarms to it."
  value       = aws_sns_topic.alarms.arn
}

output "vpc_id" {
  description = "The VPC of the workers, for your own resources."
  value       = local.vpc_id
}

output "subnet_ids" {
  description = "The subnets of the workers."
  value       = local.subnet_ids
}

output "endpoints_security_group_id" {
  description = "The security group of the VPC endpoints, for another service that shares the network; null without endpoints."
  value       = one(values(aws_security_group.endpoints)[*].id)
}

output "workers_security_group_id" {
  description = "The security group of the workers. Add rules for what they connect to besides AWS, and refer to it where you allow them in."
  value       = aws_security_group.workers.id
}
