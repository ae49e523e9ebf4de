# The plan of the metrics of tasks with a mock provider. test_terraform.py takes their patterns from it.

mock_provider "aws" {
  source          = "./mocks"
  override_during = plan

  # So that the dashboard, which lists all alarms, is known.
  mock_resource "aws_cloudwatch_metric_alarm" {
    defaults = { arn = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:mock" }
  }
}

variables {
  contract    = jsondecode(file("../../../contract.json"))
  environment = "staging"
  image_tag   = "1"
}

run "no_task_metrics" {
  command = plan

  assert {
    condition = (
      length(aws_cloudwatch_log_metric_filter.tasks) + length(aws_cloudwatch_metric_alarm.failing_tasks) + length(aws_cloudwatch_metric_alarm.slow_tasks) == 0 &&
      !strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "SEARCH")
    )
    error_message = "A service without task_metrics has something of them."
  }
}

run "task_metrics" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), { task_metrics = true })
  }

  assert {
    condition = alltrue([
      for filter in aws_cloudwatch_log_metric_filter.tasks :
      filter.log_group_name == aws_cloudwatch_log_group.workers.name &&
      filter.metric_transformation[0].namespace == local.name &&
      filter.metric_transformation[0].default_value == null &&
      contains(["Queue", "Queue,Task"], join(",", sort(keys(filter.metric_transformation[0].dimensions))))
    ])
    error_message = "A filter reads other logs, or publishes elsewhere, or CloudWatch refuses it."
  }

  assert {
    condition = alltrue([for alarms in [aws_cloudwatch_metric_alarm.failing_tasks, aws_cloudwatch_metric_alarm.slow_tasks] :
      toset(keys(alarms)) == toset(local.contract.queues[*].name) && alltrue([for alarm in alarms : length(alarm.alarm_actions) > 0 && alarm.treat_missing_data == "notBreaching"])
    ])
    error_message = "A queue has no alarms of its tasks, or they tell nobody, or an idle queue raises them."
  }

  assert {
    # All metrics of alarms are published, with these dimensions and no others.
    condition = alltrue([
      for metric in concat(
        flatten([for alarm in aws_cloudwatch_metric_alarm.failing_tasks : [for query in alarm.metric_query : query.metric[0] if length(query.metric) > 0]]),
        [for alarm in aws_cloudwatch_metric_alarm.slow_tasks : { namespace = alarm.namespace, metric_name = alarm.metric_name, dimensions = alarm.dimensions }],
        ) : anytrue([
          for filter in aws_cloudwatch_log_metric_filter.tasks :
          filter.metric_transformation[0].namespace == metric.namespace &&
          filter.metric_transformation[0].name == metric.metric_name &&
          toset(keys(filter.metric_transformation[0].dimensions)) == toset(keys(metric.dimensions))
      ])
    ])
    error_message = "An alarm reads a metric that no filter publishes."
  }

  assert {
    condition = alltrue([
      for name, alarm in aws_cloudwatch_metric_alarm.slow_tasks :
      alarm.threshold == 0.9 * one([for queue in local.effective_queues : queue.soft_limit_seconds if queue.name == name])
    ])
    error_message = "Tasks may run into their soft limit unnoticed."
  }

  assert {
    condition = alltrue([
      for metric in ["Age", "Succeeded", "Retrying", "DeadLettered", "Duration"] :
      anytrue([
        for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets :
        startswith(try(widget.properties.metrics[0][0].expression, ""), "SEARCH('{\"${local.name}\",Queue,Task} MetricName=\"${metric}\"', '")
      ]) &&
      anytrue([for filter in aws_cloudwatch_log_metric_filter.tasks : filter.metric_transformation[0].name == metric && contains(keys(filter.metric_transformation[0].dimensions), "Task")])
    ])
    error_message = "The dashboard lacks a metric of tasks, or no filter publishes it."
  }

  assert {
    condition = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[0].properties.alarms) == (
      length(aws_cloudwatch_metric_alarm.queue) + length(aws_cloudwatch_metric_alarm.no_consumers) + length(aws_cloudwatch_metric_alarm.utilization) +
      length(local.broker_alarm_arns) + length(local.results_alarm_arns) + 2 * length(local.contract.queues)
    )
    error_message = "An alarm of tasks is not on the dashboard."
  }
}

run "levels_without_the_lines_are_refused" {
  command = plan

  variables {
    contract  = merge(jsondecode(file("../../../contract.json")), { task_metrics = true })
    log_level = "WARNING"
  }

  expect_failures = [aws_cloudwatch_log_metric_filter.tasks]
}
