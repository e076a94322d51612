# The environment production. State and locks are in S3: terraform init -backend-config=bucket=… -backend-config=region=…

terraform {
  required_version = ">= 1.10"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.80"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "~> 2.17"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 2.35"
    }
  }
  backend "s3" {
    key          = "sangha/production.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { Project = "sangha", Environment = "production" }
  }
}

data "aws_eks_cluster_auth" "this" {
  name = module.cluster.name
}

provider "kubernetes" {
  host                   = module.cluster.endpoint
  cluster_ca_certificate = base64decode(module.cluster.certificate_authority)
  token                  = data.aws_eks_cluster_auth.this.token
}

provider "helm" {
  kubernetes {
    host                   = module.cluster.endpoint
    cluster_ca_certificate = base64decode(module.cluster.certificate_authority)
    token                  = data.aws_eks_cluster_auth.this.token
  }
}

locals {
  name = "sangha-production"
}

module "storage" {
  source    = "../../modules/storage"
  name      = local.name
  protected = true
}

module "network" {
  source       = "../../modules/network"
  name         = local.name
  region       = var.region
  cidr         = "10.30.0.0/16"
  nat_gateways = 3
}

module "cluster" {
  source              = "../../modules/cluster"
  name                = local.name
  subnet_ids          = module.network.private_subnet_ids
  kms_key_arn         = module.storage.kms_key_arn
  public_access_cidrs = var.public_access_cidrs
  admin_role_arns     = var.admin_role_arns
  nodes               = { min = 3, max = 12 }
  gpu_nodes           = var.gpu_nodes
}

module "database" {
  source                   = "../../modules/database"
  name                     = local.name
  vpc_id                   = module.network.vpc_id
  subnet_ids               = module.network.private_subnet_ids
  client_security_group_id = module.cluster.security_group_id
  kms_key_arn              = module.storage.kms_key_arn
  instance_class           = "db.m7g.large"
  multi_az                 = true
  protected                = true
}

module "cache" {
  source                   = "../../modules/cache"
  name                     = local.name
  vpc_id                   = module.network.vpc_id
  subnet_ids               = module.network.private_subnet_ids
  client_security_group_id = module.cluster.security_group_id
  kms_key_arn              = module.storage.kms_key_arn
  node_type                = "cache.m7g.large"
  nodes                    = 2
}

module "queue" {
  source                   = "../../modules/queue"
  name                     = local.name
  vpc_id                   = module.network.vpc_id
  subnet_ids               = module.network.private_subnet_ids
  client_security_group_id = module.cluster.security_group_id
  kms_key_arn              = module.storage.kms_key_arn
  instance_type            = "mq.m5.large"
  clustered                = true
}

module "secrets" {
  source       = "../../modules/secrets"
  name         = local.name
  kms_key_arn  = module.storage.kms_key_arn
  database_url = module.database.url
  redis_url    = module.cache.url
  broker_url   = module.queue.url
}

module "identity" {
  source            = "../../modules/identity"
  name              = local.name
  oidc_provider_arn = module.cluster.oidc_provider_arn
  oidc_issuer       = module.cluster.oidc_issuer
  namespace         = "sangha"
  bucket_arn        = module.storage.bucket_arn
  kms_key_arn       = module.storage.kms_key_arn
}

module "release" {
  source           = "../../modules/release"
  chart            = "${path.root}/../../../k8s/sangha"
  image_repository = var.image_repository
  image_tag        = var.image_tag
  host             = var.host
  certificate_arn  = var.certificate_arn
  bucket           = module.storage.bucket
  role_arn         = module.identity.role_arn
  secret_values    = module.secrets.values
  keda             = var.keda
  models           = var.models
  default_model    = var.default_model
  settings         = var.settings
}
