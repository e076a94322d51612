variable "namespace" {
  description = "Namespace, which is created."
  type        = string
  default     = "sangha"
}

variable "chart" {
  description = "Path of the chart k8s/sangha."
  type        = string
}

variable "image_repository" {
  description = "Repository of the image."
  type        = string
  default     = "ghcr.io/sangha/sangha"
}

variable "image_tag" {
  description = "Tag for the first installation; null afterwards, which keeps the image that the pipeline deployed."
  type        = string
  default     = null
}

variable "host" {
  description = "Host name of the installation."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate of ACM for the host."
  type        = string
}

variable "bucket" {
  description = "Bucket for files."
  type        = string
}

variable "role_arn" {
  description = "Role of the pods."
  type        = string
}

variable "keda" {
  description = "Scale workers by KEDA, which the cluster must have."
  type        = bool
  default     = false
}

variable "models" {
  description = "Values models of the chart."
  type        = any
  default     = {}
}

variable "default_model" {
  description = "Value defaultModel of the chart."
  type        = string
  default     = ""
}

variable "settings" {
  description = "Further settings, not for secrets."
  type        = map(string)
  default     = {}
}

variable "secret_values" {
  description = "Variables of the pods that are secret."
  type        = map(string)
  sensitive   = true
}
