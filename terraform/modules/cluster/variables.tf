variable "name" {
  description = "Name of the cluster."
  type        = string
}

variable "kubernetes_version" {
  description = "Version of Kubernetes."
  type        = string
  default     = "1.33"
}

variable "subnet_ids" {
  description = "Private subnets."
  type        = list(string)
}

variable "kms_key_arn" {
  description = "Key that encrypts Kubernetes' Secrets."
  type        = string
}

variable "public_access_cidrs" {
  description = "Addresses that may reach the API server from outside; empty: none."
  type        = list(string)
  default     = []
}

variable "admin_role_arns" {
  description = "Roles that deploy, such as that of GitHub Actions."
  type        = set(string)
  default     = []
}

variable "instance_types" {
  description = "Instances without GPU."
  type        = list(string)
  default     = ["m7i.xlarge"]
}

variable "nodes" {
  description = "Nodes without GPU."
  type        = object({ min = number, max = number })
  default     = { min = 3, max = 9 }
}

variable "gpu_instance_types" {
  description = "Instances with GPU."
  type        = list(string)
  default     = ["g6.xlarge"]
}

variable "gpu_nodes" {
  description = "Nodes with GPU; max = 0: no such group."
  type        = object({ min = number, max = number })
  default     = { min = 0, max = 0 }
}

variable "disk_gib" {
  description = "Size of a node's disk: images, and copies of models."
  type        = number
  default     = 100
}
