environment = "production"

log_retention_days = 90
broker             = { instance_type = "mq.m7g.large", deployment_mode = "CLUSTER_MULTI_AZ" }
