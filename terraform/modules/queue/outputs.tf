output "url" {
  description = "SANGHA_BROKER_URL."
  sensitive   = true
  value       = replace(aws_mq_broker.this.instances[0].endpoints[0], "amqps://", "amqps://sangha:${random_password.this.result}@")
}
