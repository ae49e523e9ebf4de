variable "results" {
  description = <<-EOT
    The result backend; every attribute is optional.
    node_type: node type (default cache.t4g.micro).
    nodes: number of nodes, 1 to 6 (default 2); failover needs at least 2.
  EOT
  type        = any
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.results), ["node_type", "nodes"])) == 0
    error_message = "results takes node_type and nodes."
  }
  validation {
    condition     = try(var.results.nodes, 2) >= 1 && try(var.results.nodes, 2) <= 6
    error_message = "The results' nodes must be between 1 and 6."
  }
}

locals {
  results = merge({ node_type = "cache.t4g.micro", nodes = 2 }, var.results)
}

locals {
  results_environment = {
    RESULTS_URL = "rediss://${aws_elasticache_replication_group.results.primary_endpoint_address}:6379/0"
  }
  # Security groups control access; IAM does not.
  results_look_statements   = {}
  results_read_statements   = {}
  results_worker_statements = {}
  results_alarm_arns        = values(aws_cloudwatch_metric_alarm.results)[*].arn
}

# No password, because Terraform would store it in its state. Only the security groups below can
# connect, over TLS.
resource "aws_elasticache_replication_group" "results" {
  replication_group_id       = local.name # 40 characters are allowed, as many as a name can have
  description                = "Results of ${local.name}"
  engine                     = "valkey"
  engine_version             = "8.0"
  parameter_group_name       = aws_elasticache_parameter_group.results.name
  node_type                  = local.results.node_type
  num_cache_clusters         = local.results.nodes
  automatic_failover_enabled = local.results.nodes > 1
  multi_az_enabled           = local.results.nodes > 1
  port                       = 6379
  subnet_group_name          = aws_elasticache_subnet_group.results.name
  security_group_ids         = [aws_security_group.results.id]
  transit_encryption_enabled = true
  at_rest_encryption_enabled = true
  kms_key_id                 = local.own_key
  # Results expire, so snapshots of them are of no use.
  snapshot_retention_limit = 0
}

# All results expire. When memory is full, those that expire next make room, which are the oldest.
# ElastiCache's default, volatile-lru, keeps what is read most, however old it is.
# https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/ParameterGroups.Engine.html
resource "aws_elasticache_parameter_group" "results" {
  name        = "${local.name}-results"
  family      = "valkey8"
  description = "Results of ${local.name}"

  parameter {
    name  = "maxmemory-policy"
    value = "volatile-ttl"
  }
}

# For each node, which ElastiCache names after the group, with a number of three digits.
# https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/CacheMetrics.WhichShouldIMonitor.html
resource "aws_cloudwatch_metric_alarm" "results" {
  for_each = merge([
    for node in range(1, local.results.nodes + 1) : {
      for kind, alarm in {
        memory    = { metric = "DatabaseMemoryUsagePercentage", stat = "Maximum", threshold = 80, minutes = 15, says = "The memory of the result backend is more than 80% full." }
        evictions = { metric = "Evictions", stat = "Sum", threshold = 0, minutes = 1, says = "The result backend is full: results are deleted before they expire." }
      } : format("%s-%03d", kind, node) => merge(alarm, { kind = kind, node = format("%s-%03d", local.name, node) })
    }
  ]...)

  alarm_name          = "${local.name}-results-${each.key}"
  alarm_description   = "${each.value.says} ${var.runbook_url}#results-${each.value.kind}"
  namespace           = "AWS/ElastiCache"
  metric_name         = each.value.metric
  dimensions          = { CacheClusterId = each.value.node }
  statistic           = each.value.stat
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
}

resource "aws_elasticache_subnet_group" "results" {
  name       = "${local.name}-results"
  subnet_ids = local.subnet_ids
}

resource "aws_security_group" "results" {
  name        = "${local.name}-results"
  description = "Result store: workers, and whom the owner lets in"
  vpc_id      = local.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "results_from_workers" {
  security_group_id            = aws_security_group.results.id
  description                  = "Workers to the result backend"
  referenced_security_group_id = aws_security_group.workers.id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_vpc_security_group_egress_rule" "workers_to_results" {
  security_group_id            = aws_security_group.workers.id
  description                  = "Workers to the result backend"
  referenced_security_group_id = aws_security_group.results.id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

output "results_security_group_id" {
  description = "The security group of the result backend. Producers that wait for results need an ingress rule for port 6379."
  value       = aws_security_group.results.id
}
