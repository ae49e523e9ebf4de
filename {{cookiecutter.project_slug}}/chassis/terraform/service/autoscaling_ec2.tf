resource "aws_autoscaling_policy" "backlog" {
  for_each = local.queues

  name                   = "${local.name}-${each.key}-backlog"
  policy_type            = "TargetTrackingScaling"
  autoscaling_group_name = aws_autoscaling_group.worker[each.key].name

  target_tracking_configuration {
    target_value     = each.value.backlog_per_worker
    disable_scale_in = each.value.workers_min == 0

    customized_metric_specification {
      metrics {
        id          = "backlog"
        label       = "Waiting messages per worker"
        expression  = local.backlog_per_worker_expression
        return_data = true
      }
      dynamic "metrics" {
        for_each = { for id in ["visible", "running"] : id => local.metrics[each.key][id] }
        content {
          id          = metrics.key
          return_data = false
          metric_stat {
            stat = metrics.value.stat
            metric {
              namespace   = metrics.value.namespace
              metric_name = metrics.value.name
              dynamic "dimensions" {
                for_each = metrics.value.dimensions
                content {
                  name  = dimensions.key
                  value = dimensions.value
                }
              }
            }
          }
        }
      }
    }
  }
}

resource "aws_autoscaling_policy" "wake" {
  for_each = local.sleeping_queues

  name                      = "${local.name}-${each.key}-wake"
  policy_type               = "StepScaling"
  autoscaling_group_name    = aws_autoscaling_group.worker[each.key].name
  adjustment_type           = "ChangeInCapacity"
  metric_aggregation_type   = "Maximum"
  estimated_instance_warmup = 300 # The alarm stays in ALARM until the worker has started.

  step_adjustment {
    metric_interval_lower_bound = 0
    scaling_adjustment          = 1
  }
}

resource "aws_autoscaling_policy" "sleep" {
  for_each = local.sleeping_queues

  name                    = "${local.name}-${each.key}-sleep"
  policy_type             = "StepScaling"
  autoscaling_group_name  = aws_autoscaling_group.worker[each.key].name
  adjustment_type         = "ExactCapacity"
  metric_aggregation_type = "Maximum"

  step_adjustment {
    metric_interval_upper_bound = 0
    scaling_adjustment          = 0
  }
}

locals {
  wake_policy_arns  = { for name, policy in aws_autoscaling_policy.wake : name => policy.arn }
  sleep_policy_arns = { for name, policy in aws_autoscaling_policy.sleep : name => policy.arn }
}
