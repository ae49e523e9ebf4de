# From top to bottom: alarms, backlog, workers, throughput, dead-letter messages; with `task_metrics`, tasks.
locals {
  workers_chart = { title = "Workers", metrics = [
    for name, metric in local.running_workers_metrics : concat(
      [metric.namespace, metric.name], flatten([for key, value in metric.dimensions : [key, value]]), [{ label = name, stat = "Average" }]
    )
  ] }
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = local.global_name
  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type = "alarm", x = 0, y = 0, width = 24, height = 3
        properties = {
          title = "Alarms"
          alarms = concat(
            values(aws_cloudwatch_metric_alarm.queue)[*].arn,
            values(aws_cloudwatch_metric_alarm.no_consumers)[*].arn,
            values(aws_cloudwatch_metric_alarm.utilization)[*].arn,
            local.broker_alarm_arns,
            local.results_alarm_arns,
            local.task_alarm_arns,
          )
        }
      }],
      [for index, chart in concat(local.charts, local.task_charts) : {
        type = "metric", x = 12 * (index % 2), y = 3 + 6 * floor(index / 2), width = 12, height = 6
        properties = {
          title   = chart.title
          region  = local.region
          period  = 60
          view    = "timeSeries"
          yAxis   = { left = { min = 0 } }
          metrics = chart.metrics
        }
      }],
    )
  })
}
