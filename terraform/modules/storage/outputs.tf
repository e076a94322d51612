output "kms_key_arn" {
  description = "Key for everything that is stored."
  value       = aws_kms_key.this.arn
}

output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.files.bucket
}

output "bucket_arn" {
  description = "Bucket for the policy of the pods."
  value       = aws_s3_bucket.files.arn
}
