variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "host" {
  description = "Host name of the installation."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate of ACM for the host."
  type        = string
}

variable "image_repository" {
  description = "Repository of the image, such as ghcr.io/ORGANIZATION/sangha."
  type        = string
}

variable "image_tag" {
  description = "Tag for the first installation; null afterwards, which keeps the image that the pipeline deployed."
  type        = string
  default     = null
}

variable "public_access_cidrs" {
  description = "Addresses that may reach the API server from outside, such as those of the pipeline's runners."
  type        = list(string)
}

variable "admin_role_arns" {
  description = "Roles that deploy, such as that of GitHub Actions."
  type        = set(string)
  default     = []
}

variable "gpu_nodes" {
  description = "Nodes with GPU; max = 0: none."
  type        = object({ min = number, max = number })
  default     = { min = 0, max = 0 }
}

variable "keda" {
  description = "Scale workers by KEDA, which the cluster must have."
  type        = bool
  default     = false
}

variable "models" {
  description = "Value models of the chart."
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
