# RabbitMQ. Jobs are rows in Postgres, so a lost broker loses no job.

resource "aws_security_group" "this" {
  name        = "${var.name}-queue"
  description = "RabbitMQ, for the cluster"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "amqps" {
  security_group_id            = aws_security_group.this.id
  referenced_security_group_id = var.client_security_group_id
  description                  = "AMQP over TLS"
  ip_protocol                  = "tcp"
  from_port                    = 5671
  to_port                      = 5671
}

resource "random_password" "this" {
  length  = 40
  special = false
}

resource "aws_mq_broker" "this" {
  broker_name                = var.name
  engine_type                = "RabbitMQ"
  engine_version             = var.engine_version
  host_instance_type         = var.instance_type
  deployment_mode            = var.clustered ? "CLUSTER_MULTI_AZ" : "SINGLE_INSTANCE"
  subnet_ids                 = var.clustered ? var.subnet_ids : slice(var.subnet_ids, 0, 1)
  security_groups            = [aws_security_group.this.id]
  publicly_accessible        = false
  auto_minor_version_upgrade = true

  encryption_options {
    use_aws_owned_key = false
    kms_key_id        = var.kms_key_arn
  }

  logs {
    general = true
  }

  user {
    username = "sangha"
    password = random_password.this.result
  }
}
