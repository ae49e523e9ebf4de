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
