output "flower_policy_arn" {
  description = "Policy to attach to whoever may look at Flower; null without it."
  value       = module.service.flower_policy_arn
}
