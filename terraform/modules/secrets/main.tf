# What pods get as variables, in Secrets Manager as well, from which a lost cluster is built again.

resource "random_password" "secret_key" {
  length  = 64
  special = false
}

locals {
  values = {
    SANGHA_DATABASE_URL = var.database_url
    SANGHA_REDIS_URL    = var.redis_url
    SANGHA_BROKER_URL   = var.broker_url
    SANGHA_SECRET_KEY   = random_password.secret_key.result
  }
}

resource "aws_secretsmanager_secret" "settings" {
  name        = "${var.name}-settings"
  description = "Variables of Sangha's pods"
  kms_key_id  = var.kms_key_arn
}

resource "aws_secretsmanager_secret_version" "settings" {
  secret_id     = aws_secretsmanager_secret.settings.id
  secret_string = jsonencode(local.values)
}

# Its value is an API key, which is created once the installation runs.
resource "aws_secretsmanager_secret" "smoke_key" {
  name        = "${var.name}-smoke-key"
  description = "API key of the smoke test"
  kms_key_id  = var.kms_key_arn
}
