mock_provider "aws" {
  source          = "./mocks"
  override_during = plan
}

variables {
  contract    = jsondecode(file("../../../contract.json"))
  environment = "staging"
  image_tag   = "1"
}

run "oldest_results_make_room_and_somebody_is_told" {
  command = plan

  variables {
    results = { nodes = 3 }
  }

  assert {
    condition = (
      aws_elasticache_replication_group.results.parameter_group_name == aws_elasticache_parameter_group.results.name &&
      { for parameter in aws_elasticache_parameter_group.results.parameter : parameter.name => parameter.value }["maxmemory-policy"] == "volatile-ttl" &&
      aws_elasticache_parameter_group.results.family == "valkey${split(".", aws_elasticache_replication_group.results.engine_version)[0]}"
    )
    error_message = "A full result backend deletes other results than those that expire next, or its engine has other parameters."
  }

  assert {
    condition = {
      for metric in ["DatabaseMemoryUsagePercentage", "Evictions"] : metric => sort([
        for alarm in aws_cloudwatch_metric_alarm.results : alarm.dimensions.CacheClusterId if alarm.metric_name == metric
      ])
    } == { for metric in ["DatabaseMemoryUsagePercentage", "Evictions"] : metric => tolist([for node in ["001", "002", "003"] : "${local.name}-${node}"]) }
    error_message = "A node of the result backend may fill up without an alarm."
  }

  assert {
    condition     = length(local.results_alarm_arns) == length(aws_cloudwatch_metric_alarm.results)
    error_message = "An alarm of the result backend is not on the dashboard."
  }
}
