resource "aws_appautoscaling_target" "worker" {
  for_each = local.queues

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${local.name}/${aws_ecs_service.worker[each.key].name}"
  min_capacity       = local.workers[each.key].min
  max_capacity       = local.workers[each.key].max
}

resource "aws_appautoscaling_policy" "backlog" {
  for_each = local.queues

  name               = "backlog-per-worker"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.worker[each.key].service_namespace
  scalable_dimension = aws_appautoscaling_target.worker[each.key].scalable_dimension
  resource_id        = aws_appautoscaling_target.worker[each.key].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.backlog_per_worker
    scale_out_cooldown = 60
    scale_in_cooldown  = 300
    disable_scale_in   = each.value.workers_min == 0

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

resource "aws_appautoscaling_policy" "wake" {
  for_each = local.sleeping_queues

  name               = "wake"
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

resource "aws_appautoscaling_policy" "sleep" {
  for_each = local.sleeping_queues

  name               = "sleep"
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
  wake_policy_arns  = { for name, policy in aws_appautoscaling_policy.wake : name => policy.arn }
  sleep_policy_arns = { for name, policy in aws_appautoscaling_policy.sleep : name => policy.arn }
}
