# The namespace, the Secret and the Helm chart. Afterwards the pipeline deploys images: `reuse_values` keeps its image.

resource "kubernetes_namespace_v1" "this" {
  metadata {
    name   = var.namespace
    labels = { "pod-security.kubernetes.io/enforce" = "restricted" }
  }
}

resource "kubernetes_secret_v1" "settings" {
  metadata {
    name      = "sangha"
    namespace = kubernetes_namespace_v1.this.metadata[0].name
  }
  data = var.secret_values
}

locals {
  values = {
    publicUrl      = "https://${var.host}"
    existingSecret = kubernetes_secret_v1.settings.metadata[0].name
    settings       = merge({ SANGHA_OBJECT_STORE = "s3://${var.bucket}/files" }, var.settings)
    models         = var.models
    defaultModel   = var.default_model
    serviceAccount = {
      annotations = { "eks.amazonaws.com/role-arn" = var.role_arn }
    }
    autoscaling = {
      enabled = var.keda
    }
    ingress = {
      enabled    = true
      className  = "alb"
      controller = "alb"
      hosts      = [var.host]
      annotations = {
        "alb.ingress.kubernetes.io/scheme"          = "internet-facing"
        "alb.ingress.kubernetes.io/target-type"     = "ip"
        "alb.ingress.kubernetes.io/certificate-arn" = var.certificate_arn
      }
    }
  }
  image = {
    image = {
      repository = var.image_repository
      tag        = var.image_tag
    }
  }
}

resource "helm_release" "this" {
  name         = "sangha"
  chart        = var.chart
  namespace    = kubernetes_namespace_v1.this.metadata[0].name
  reuse_values = true
  wait         = true
  timeout      = 7200
  values       = concat([yamlencode(local.values)], var.image_tag == null ? [] : [yamlencode(local.image)])
}
