variable "name" {
  description = "What the names of all objects begin with."
  type        = string
}

variable "region" {
  description = "Region of AWS."
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC: a /16 to /20."
  type        = string
  default     = "10.20.0.0/16"
}

variable "nat_gateways" {
  description = "NAT gateways, 1 to 3: with 3, losing a zone does not cut off the others."
  type        = number
  default     = 1
}
