variable "name" {
  description = "Name of the replication group, at most 40 characters."
  type        = string
}

variable "vpc_id" {
  description = "VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets."
  type        = list(string)
}

variable "client_security_group_id" {
  description = "Security group that may connect."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that encrypts the snapshots and disks."
  type        = string
}

variable "node_type" {
  description = "Type of a node."
  type        = string
  default     = "cache.m7g.large"
}

variable "nodes" {
  description = "Nodes: a primary and its replicas."
  type        = number
  default     = 2
}
