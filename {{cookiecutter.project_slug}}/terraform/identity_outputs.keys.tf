output "access_key_secret_arn" {
  description = "Secret in which `keys rotate` stores the access key."
  value       = module.service.access_key_secret_arn
}
