output "cluster" {
  description = "Name of the cluster: EKS_CLUSTER of the pipeline."
  value       = module.cluster.name
}
