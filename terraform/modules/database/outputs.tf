output "url" {
  description = "SANGHA_DATABASE_URL."
  sensitive   = true
  value       = "postgresql://sangha:${random_password.this.result}@${aws_db_instance.this.endpoint}/sangha?sslmode=require"
}
