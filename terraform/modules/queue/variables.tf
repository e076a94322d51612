variable "name" {
  description = "Name of the broker."
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
  description = "Key that encrypts the disks."
  type        = string
}

variable "engine_version" {
  description = "Version of RabbitMQ."
  type        = string
  default     = "3.13"
}

variable "instance_type" {
  description = "Type of a node; a cluster needs at least mq.m5.large."
  type        = string
  default     = "mq.m5.large"
}

variable "clustered" {
  description = "Run three nodes in three zones."
  type        = bool
  default     = true
}
