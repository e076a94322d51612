variable "name" {
  description = "What the names of the secrets begin with."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that encrypts them."
  type        = string
}

variable "database_url" {
  description = "SANGHA_DATABASE_URL."
  type        = string
  sensitive   = true
}

variable "redis_url" {
  description = "SANGHA_REDIS_URL."
  type        = string
  sensitive   = true
}

variable "broker_url" {
  description = "SANGHA_BROKER_URL."
  type        = string
  sensitive   = true
}
