variable "name" {
  description = "What the names of key and bucket begin with."
  type        = string
}

variable "protected" {
  description = "Refuse to delete a bucket that has files."
  type        = bool
  default     = true
}

variable "version_days" {
  description = "Days for which deleted files can be restored: as many as the database has backups."
  type        = number
  default     = 14
}
