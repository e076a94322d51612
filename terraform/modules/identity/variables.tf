variable "name" {
  description = "What the role's name begins with."
  type        = string
}

variable "oidc_provider_arn" {
  description = "Identity provider of the cluster."
  type        = string
}

variable "oidc_issuer" {
  description = "Its issuer without https://."
  type        = string
}

variable "namespace" {
  description = "Namespace of the pods."
  type        = string
}

variable "service_accounts" {
  description = "ServiceAccounts of the chart."
  type        = list(string)
  default     = ["sangha", "sangha-worker"]
}

variable "bucket_arn" {
  description = "Bucket for files."
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the bucket."
  type        = string
}
