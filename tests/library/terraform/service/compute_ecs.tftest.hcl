# The plan of the workers with a mock provider, which knows ARNs before anything is applied.
# Nothing is applied: before 1.14, Terraform could not destroy the queues after a test, because of their prevent_destroy.
# https://github.com/hashicorp/terraform/pull/37364

mock_provider "aws" {
  source          = "./mocks"
  override_during = plan
}

variables {
  contract    = jsondecode(file("../../../contract.json"))
  environment = "staging"
  image_tag   = "1"
}

run "workers" {
  command = plan

  assert {
    condition = alltrue([
      for name, task in aws_ecs_task_definition.worker :
      join(" ", jsondecode(task.container_definitions)[0].command) == "${local.contract.service} worker ${name}"
    ])
    error_message = "A container runs another worker than its service's."
  }

  assert {
    condition = alltrue([
      for task in aws_ecs_task_definition.worker :
      jsondecode(task.container_definitions)[0].stopTimeout == local.contract.stop_timeout_seconds &&
      jsondecode(task.container_definitions)[0].stopTimeout <= 120 &&
      jsondecode(task.container_definitions)[0].stopTimeout > local.contract.soft_shutdown_seconds
    ])
    error_message = "A worker is killed before its soft shutdown is over."
  }

  assert {
    condition = alltrue([
      for task in aws_ecs_task_definition.worker :
      { for variable in jsondecode(task.container_definitions)[0].environment : variable.name => variable.value } == { for name, value in output.environment : name => value }
    ])
    error_message = "A container's environment is not what the outputs say."
  }

  assert {
    condition = alltrue([
      for task in aws_ecs_task_definition.worker :
      join(" ", [for secret in jsondecode(task.container_definitions)[0].secrets : secret.name if startswith(secret.name, "AWS_")]) == (
        local.contract.credentials == "keys" ? "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY" : ""
      ) && jsondecode(task.container_definitions)[0].readonlyRootFilesystem
    ])
    error_message = "A container gets other secrets than it needs, or can write its files."
  }

  assert {
    condition = alltrue([
      for worker in local.effective_workers :
      aws_appautoscaling_target.worker[worker.name].min_capacity == worker.min &&
      aws_appautoscaling_target.worker[worker.name].max_capacity == worker.max &&
      aws_appautoscaling_target.worker[worker.name].resource_id == "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.worker[worker.name].name}"
    ])
    error_message = "Scaling has other bounds than the contract, or scales another service."
  }

  assert {
    condition = alltrue([
      for name, policy in aws_appautoscaling_policy.backlog : policy.target_tracking_scaling_policy_configuration[0].target_value == 1 && alltrue([
        for index, queue in local.workers[name].queues : alltrue([
          for metric in policy.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metrics :
          tonumber(regex("visible${index}[^/]* / ([0-9]+)", metric.expression)[0]) * local.queues[queue].seconds_per_task <= max(
            local.queues[queue].seconds_per_task, local.queues[queue].acceptable_latency_seconds * local.workers[name].concurrency
          ) if metric.id == "backlog"
        ])
      ])
    ])
    error_message = "Scaling lets more messages wait per worker than it clears within the acceptable latency."
  }

  assert {
    condition = alltrue([
      for name, policy in aws_appautoscaling_policy.backlog : toset(flatten([
        for metric in policy.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metrics : [
          for stat in metric.metric_stat : [for dimension in stat.metric[0].dimensions : dimension.value]
        ]
      ])) == toset(concat(flatten([for queue in local.workers[name].queues : values(local.queue_metrics[queue].visible.dimensions)]), [aws_ecs_cluster.this.name, aws_ecs_service.worker[name].name]))
    ])
    error_message = "Scaling follows other queues or counts another service's workers."
  }

  assert {
    condition = alltrue([
      for worker in local.effective_workers :
      contains(keys(aws_appautoscaling_policy.from_zero), worker.name) == (worker.min == 0) &&
      contains(keys(aws_appautoscaling_policy.to_zero), worker.name) == (worker.min == 0) &&
      aws_appautoscaling_policy.backlog[worker.name].target_tracking_scaling_policy_configuration[0].disable_scale_in == (worker.min == 0)
    ])
    error_message = "A worker with a min of 0 does not scale from zero, or its last worker is stopped while busy."
  }
}

run "workers_get_variables_and_secrets_of_the_owners" {
  command = plan

  variables {
    environment_variables = { PARTNER_URL = "https://partner.example" }
    secrets               = { PARTNER_KEY = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:partner-abcdef" }
  }

  assert {
    condition = alltrue([
      for task in aws_ecs_task_definition.worker :
      contains(jsondecode(task.container_definitions)[0].environment, { name = "PARTNER_URL", value = "https://partner.example" }) &&
      contains(jsondecode(task.container_definitions)[0].secrets, { name = "PARTNER_KEY", valueFrom = var.secrets.PARTNER_KEY })
    ])
    error_message = "A worker lacks a variable or a secret of the owner's."
  }
}

run "what_workers_on_fargate_do_not_take_is_refused" {
  command = plan

  variables {
    compute = { cpu = 1024 }
  }

  expect_failures = [var.compute]
}

run "sizes_in_place_of_the_contracts_are_refused" {
  command = plan

  variables {
    compute = { cpu_units = 256 }
  }

  expect_failures = [var.compute]
}

run "a_worker_of_two_queues_is_one_service" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues = [
        { name = "urgent", visibility_timeout_seconds = 960, acceptable_latency_seconds = 10, seconds_per_task = 5 },
        { name = "slow", visibility_timeout_seconds = 960, acceptable_latency_seconds = 600, seconds_per_task = 60 },
        { name = "alone" },
      ]
      workers = [{ name = "both", queues = ["urgent", "slow"], concurrency = 2, min = 1, max = 3, cpu_units = 1024, memory_mib = 2048 }]
    })
  }

  assert {
    condition = (
      toset(keys(aws_ecs_service.worker)) == toset(["both", "alone"]) &&
      toset([for service in aws_ecs_service.worker : service.name]) == toset(["both", "alone"]) &&
      toset(keys(aws_appautoscaling_policy.backlog)) == toset(["both", "alone"])
    )
    error_message = "A worker is not one service, or a queue that no worker lists has no worker of its name."
  }

  assert {
    condition = alltrue([
      for task in [jsondecode(aws_ecs_task_definition.worker["both"].container_definitions)[0]] :
      task.command == [local.contract.service, "worker", "both"] &&
      task.healthCheck.command == ["CMD", local.contract.service, "health", "both"]
    ])
    error_message = "A service runs another worker."
  }

  assert {
    condition = (
      aws_ecs_task_definition.worker["both"].cpu == "1024" && aws_ecs_task_definition.worker["both"].memory == "2048" &&
      aws_ecs_task_definition.worker["alone"].cpu == tostring(local.contract.worker_defaults.cpu_units) &&
      aws_appautoscaling_target.worker["both"].max_capacity == 3
    )
    error_message = "A worker has another size than the contract says."
  }

  assert {
    condition = {
      for metric in aws_appautoscaling_policy.backlog["both"].target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metrics :
      metric.id => try(one([for dimension in metric.metric_stat[0].metric[0].dimensions : dimension.value if contains(["Queue", "QueueName"], dimension.name)]), metric.expression)
      } == {
      backlog  = "IF(running > 0, (FILL(FILL(visible0, REPEAT), 0) / 4 + FILL(FILL(visible1, REPEAT), 0) / 20) / running)"
      running  = null
      visible0 = local.queues.urgent.queue_name
      visible1 = local.queues.slow.queue_name
    }
    error_message = "Scaling does not follow both queues, each with its own acceptable latency."
  }
}

run "spot_is_only_for_workers_above_the_least" {
  command = plan

  variables {
    use_spot = true
  }

  assert {
    condition = alltrue([
      for worker in local.effective_workers : anytrue([
        for strategy in aws_ecs_service.worker[worker.name].capacity_provider_strategy :
        strategy.capacity_provider == "FARGATE" && strategy.base == worker.min && strategy.weight == 0
      ])
    ])
    error_message = "The least number of workers is not safe from Spot."
  }
}

run "workers_have_the_owners_sidecars_boundary_and_alarms" {
  command = plan

  variables {
    alarm_actions            = ["arn:aws:sns:eu-west-1:123456789012:on-call"]
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/limited"
    network                  = { internet_access = "public" }
    compute = {
      sidecars = [
        { name = "collector", image = "public.ecr.aws/aws-observability/aws-otel-collector:v0.43.0", essential = false },
        { name = "quiet", image = "example/quiet:1", logConfiguration = { logDriver = "none" } },
      ]
    }
  }

  assert {
    condition = alltrue([
      for task in aws_ecs_task_definition.worker :
      [for container in jsondecode(task.container_definitions) : [container.name, container.logConfiguration.logDriver]] == [["worker", "awslogs"], ["collector", "awslogs"], ["quiet", "none"]]
    ])
    error_message = "Workers do not have the containers that the owner added, or these do not log."
  }

  assert {
    condition     = alltrue([for role in [aws_iam_role.workers, aws_iam_role.execution] : role.permissions_boundary == var.permissions_boundary_arn])
    error_message = "A role is not limited by the boundary."
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.queue), values(aws_cloudwatch_metric_alarm.no_consumers), values(aws_cloudwatch_metric_alarm.utilization)) :
      contains(alarm.alarm_actions, var.alarm_actions[0]) && contains(alarm.ok_actions, var.alarm_actions[0]) && length(alarm.alarm_actions) == 2
    ])
    error_message = "An alarm does not reach who is on call."
  }

  assert {
    condition     = alltrue([for service in aws_ecs_service.worker : service.network_configuration[0].assign_public_ip])
    error_message = "Workers in public subnets have no way to the internet."
  }
}

run "a_sidecar_in_place_of_the_worker_is_refused" {
  command = plan

  variables {
    compute = { sidecars = [{ name = "worker", image = "example/other:1" }] }
  }

  expect_failures = [var.compute]
}
