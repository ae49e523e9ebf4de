resource "aws_appautoscaling_target" "worker" {
  for_each = local.workers

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${local.name}/${aws_ecs_service.worker[each.key].name}"
  min_capacity       = local.capacity[each.key].min
  max_capacity       = local.capacity[each.key].max
}

resource "aws_appautoscaling_policy" "backlog" {
  for_each = local.scaled_workers

  name               = "backlog-per-worker"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.worker[each.key].service_namespace
  scalable_dimension = aws_appautoscaling_target.worker[each.key].scalable_dimension
  resource_id        = aws_appautoscaling_target.worker[each.key].resource_id

  target_tracking_scaling_policy_configuration {
    target_value = 1
    # Until the tasks of a scale-out run and their number is published, the load looks as before, and
    # would be multiplied again. More is still added if the load grows. The default of AWS for ECS.
    # https://docs.aws.amazon.com/autoscaling/application/APIReference/API_TargetTrackingScalingPolicyConfiguration.html
    scale_out_cooldown = 300
    scale_in_cooldown  = 300
    disable_scale_in   = each.value.min == 0

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

resource "aws_appautoscaling_policy" "from_zero" {
  for_each = local.to_zero_workers

  name               = "scale-from-zero"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.worker[each.key].service_namespace
  scalable_dimension = aws_appautoscaling_target.worker[each.key].scalable_dimension
  resource_id        = aws_appautoscaling_target.worker[each.key].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    metric_aggregation_type = "Maximum"
    cooldown                = 300 # The alarm stays in ALARM until the worker has started.
    step_adjustment {
      metric_interval_lower_bound = 0
      scaling_adjustment          = 1
    }
  }
}

resource "aws_appautoscaling_policy" "to_zero" {
  for_each = local.to_zero_workers

  name               = "scale-to-zero"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.worker[each.key].service_namespace
  scalable_dimension = aws_appautoscaling_target.worker[each.key].scalable_dimension
  resource_id        = aws_appautoscaling_target.worker[each.key].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ExactCapacity"
    metric_aggregation_type = "Maximum"
    step_adjustment {
      metric_interval_upper_bound = 0
      scaling_adjustment          = 0
    }
  }
}

locals {
  from_zero_policy_arns = { for name, policy in aws_appautoscaling_policy.from_zero : name => policy.arn }
  to_zero_policy_arns   = { for name, policy in aws_appautoscaling_policy.to_zero : name => policy.arn }
}

# Names of chassis 1.
moved {
  from = aws_appautoscaling_policy.wake
  to   = aws_appautoscaling_policy.from_zero
}
moved {
  from = aws_appautoscaling_policy.sleep
  to   = aws_appautoscaling_policy.to_zero
}
