environment = "production"

log_retention_days     = 90
broker_instance_type   = "mq.m7g.large"
broker_deployment_mode = "CLUSTER_MULTI_AZ"
