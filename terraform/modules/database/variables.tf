variable "name" {
  description = "Name of the instance."
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
  description = "Key that encrypts the storage."
  type        = string
}

variable "instance_class" {
  description = "Class of the instance."
  type        = string
  default     = "db.m7g.large"
}

variable "storage_gib" {
  description = "Size of the storage at first; it grows up to ten times."
  type        = number
  default     = 100
}

variable "multi_az" {
  description = "Keep a standby in another zone, which takes over by itself."
  type        = bool
  default     = true
}

variable "backup_days" {
  description = "Days for which point-in-time recovery is possible."
  type        = number
  default     = 14
}

variable "protected" {
  description = "Refuse deletion, and take a last snapshot."
  type        = bool
  default     = true
}
