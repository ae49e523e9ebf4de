output "flower_policy_arn" {
  description = "Policy that allows opening Flower; null if Flower is not deployed."
  value       = module.service.flower_policy_arn
}
