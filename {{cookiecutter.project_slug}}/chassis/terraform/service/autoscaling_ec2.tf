resource "aws_autoscaling_policy" "backlog" {
  for_each = local.scaled_workers

  name                   = "${local.name}-${each.key}-backlog"
  policy_type            = "TargetTrackingScaling"
  autoscaling_group_name = aws_autoscaling_group.worker[each.key].name
  # Until the number of instances is published, the load looks as before a scale-out, and would be
  # multiplied again. An instance that warms up counts as added already.
  # https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-default-instance-warmup.html
  estimated_instance_warmup = 300

  target_tracking_configuration {
    target_value     = 1
    disable_scale_in = each.value.min == 0

    customized_metric_specification {
      metrics {
        id          = "backlog"
        label       = "Waiting messages per worker, as a share of what it clears in time"
        expression  = local.load[each.key].expression
        return_data = true
      }
      dynamic "metrics" {
        for_each = { for id in local.load[each.key].metrics : id => local.metrics[each.key][id] }
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

resource "aws_autoscaling_policy" "from_zero" {
  for_each = local.to_zero_workers

  name                      = "${local.name}-${each.key}-scale-from-zero"
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

resource "aws_autoscaling_policy" "to_zero" {
  for_each = local.to_zero_workers

  name                    = "${local.name}-${each.key}-scale-to-zero"
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
  from_zero_policy_arns = { for name, policy in aws_autoscaling_policy.from_zero : name => policy.arn }
  to_zero_policy_arns   = { for name, policy in aws_autoscaling_policy.to_zero : name => policy.arn }
}

# Names of chassis 1.
moved {
  from = aws_autoscaling_policy.wake
  to   = aws_autoscaling_policy.from_zero
}
moved {
  from = aws_autoscaling_policy.sleep
  to   = aws_autoscaling_policy.to_zero
}
