output "values" {
  description = "Variables of the pods."
  sensitive   = true
  value       = local.values
}

output "smoke_key_arn" {
  description = "Secret of the smoke test."
  value       = aws_secretsmanager_secret.smoke_key.arn
}
