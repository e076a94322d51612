output "role_arn" {
  description = "Role for the annotation eks.amazonaws.com/role-arn."
  value       = aws_iam_role.pods.arn
}
