# The plan of the beat with a mock provider; see compute_ecs.tftest.hcl.

mock_provider "aws" {
  source          = "./mocks"
  override_during = plan
}

override_resource {
  target          = aws_iam_policy.this["producer"]
  override_during = plan
  values          = { arn = "arn:aws:iam::123456789012:policy/producer" }
}

variables {
  contract    = jsondecode(file("../../../contract.json"))
  environment = "staging"
  image_tag   = "1"
}

run "there_is_none_without_schedules" {
  command = plan

  assert {
    condition = length(aws_ecs_service.beat) + length(aws_ecs_task_definition.beat) + length(aws_iam_role.beat) + length(
      aws_iam_role_policy_attachment.beat
    ) + length(aws_cloudwatch_metric_alarm.beat_gone) + length(aws_cloudwatch_log_metric_filter.beat_failures) == 0
    error_message = "A beat runs, or has permissions, without schedules."
  }
}

run "beat" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues    = concat(jsondecode(file("../../../contract.json")).queues, [{ name = "beat" }])
      schedules = [{ name = "nightly", task = "tasks.any", cron = "0 3 * * *", enabled = false }]
    })
  }

  assert {
    condition = (
      aws_ecs_service.beat["Beat"].desired_count == 1 &&
      aws_ecs_service.beat["Beat"].deployment_minimum_healthy_percent == 0 &&
      aws_ecs_service.beat["Beat"].deployment_maximum_percent == 100 &&
      aws_ecs_service.beat["Beat"].availability_zone_rebalancing == "DISABLED" &&
      aws_ecs_service.beat["Beat"].deployment_circuit_breaker[0].rollback &&
      !contains(keys(aws_appautoscaling_target.worker), "Beat")
    )
    error_message = "There can be two beats, or a failed deployment leaves none."
  }

  assert {
    condition = (
      jsondecode(aws_ecs_task_definition.beat["Beat"].container_definitions)[0].command == [local.contract.service, "beat"] &&
      jsondecode(aws_ecs_task_definition.beat["Beat"].container_definitions)[0].healthCheck.command == ["CMD", local.contract.service, "health", "Beat"] &&
      jsondecode(aws_ecs_task_definition.beat["Beat"].container_definitions)[0].image == local.image &&
      jsondecode(aws_ecs_task_definition.beat["Beat"].container_definitions)[0].readonlyRootFilesystem &&
      jsondecode(aws_ecs_task_definition.beat["Beat"].container_definitions)[0].environment == jsondecode(aws_ecs_task_definition.worker["beat"].container_definitions)[0].environment &&
      jsondecode(aws_ecs_task_definition.beat["Beat"].container_definitions)[0].secrets == jsondecode(aws_ecs_task_definition.worker["beat"].container_definitions)[0].secrets &&
      [aws_ecs_task_definition.beat["Beat"].cpu, aws_ecs_task_definition.beat["Beat"].memory] == ["256", "512"]
    )
    error_message = "The container runs something else, or what runs there cannot start."
  }

  assert {
    condition = (
      aws_iam_role_policy_attachment.beat["Beat"].role == aws_iam_role.beat["Beat"].name &&
      aws_iam_role_policy_attachment.beat["Beat"].policy_arn == "arn:aws:iam::123456789012:policy/producer" &&
      aws_iam_role.beat["Beat"].name != aws_iam_role.workers.name
    )
    error_message = "The beat has other permissions than a producer."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.beat_gone["Beat"].dimensions == tomap({ ClusterName = local.name, ServiceName = aws_ecs_service.beat["Beat"].name }) &&
      aws_cloudwatch_metric_alarm.beat_gone["Beat"].treat_missing_data == "breaching" &&
      length(aws_cloudwatch_metric_alarm.beat_gone["Beat"].alarm_actions) > 0
    )
    error_message = "Nobody is told that the beat is gone."
  }

  assert {
    condition = toset(keys(aws_cloudwatch_log_metric_filter.beat_failures)) == toset(["not-sent", "ended"]) && alltrue([
      for filter in aws_cloudwatch_log_metric_filter.beat_failures : (
        filter.log_group_name == aws_cloudwatch_log_group.workers.name &&
        filter.metric_transformation[0].name == aws_cloudwatch_metric_alarm.beat_failures["Beat"].metric_name &&
        filter.metric_transformation[0].namespace == aws_cloudwatch_metric_alarm.beat_failures["Beat"].namespace
      )
    ]) && length(aws_cloudwatch_metric_alarm.beat_failures["Beat"].alarm_actions) > 0
    error_message = "Nobody is told that the beat fails."
  }

  assert {
    condition     = length(distinct([for name, worker in aws_ecs_service.worker : name])) == length(local.effective_workers) && aws_ecs_service.worker["beat"].name == "beat"
    error_message = "A worker is lost to the beat."
  }
}

run "without_an_image_there_is_no_beat_and_no_alarm" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      schedules = [{ name = "nightly", task = "tasks.any", cron = "0 3 * * *" }]
    })
    image_tag = ""
  }

  assert {
    condition     = aws_ecs_service.beat["Beat"].desired_count == 0 && length(aws_cloudwatch_metric_alarm.beat_gone) == 0
    error_message = "A beat without an image is started, or missed."
  }
}
