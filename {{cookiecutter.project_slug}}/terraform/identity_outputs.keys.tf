output "access_key_secret_arn" {
  description = "Where the command keys rotate puts the access key."
  value       = module.service.access_key_secret_arn
}
