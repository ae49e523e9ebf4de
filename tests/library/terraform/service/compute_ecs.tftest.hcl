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
    error_message = "A container runs another command than its queue's worker."
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
      for queue in local.contract.queues :
      aws_appautoscaling_target.worker[queue.name].min_capacity == queue.workers_min &&
      aws_appautoscaling_target.worker[queue.name].max_capacity == queue.workers_max &&
      aws_appautoscaling_target.worker[queue.name].resource_id == "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.worker[queue.name].name}"
    ])
    error_message = "Scaling has other bounds than the contract, or scales another service."
  }

  assert {
    condition = alltrue([
      for queue in local.contract.queues :
      aws_appautoscaling_policy.backlog[queue.name].target_tracking_scaling_policy_configuration[0].target_value * queue.seconds_per_task <= max(queue.seconds_per_task, queue.acceptable_latency_seconds * queue.concurrency)
    ])
    error_message = "Scaling lets more wait for a worker than it clears within the acceptable latency."
  }

  assert {
    condition = alltrue([
      for name, policy in aws_appautoscaling_policy.backlog : toset(flatten([
        for metric in policy.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metrics : [
          for stat in metric.metric_stat : [for dimension in stat.metric[0].dimensions : dimension.value]
        ]
      ])) == toset(concat(values(local.queue_metrics[name].visible.dimensions), [aws_ecs_cluster.this.name, aws_ecs_service.worker[name].name]))
    ])
    error_message = "Scaling follows another queue or counts another service's workers."
  }

  assert {
    condition = alltrue([
      for queue in local.contract.queues :
      contains(keys(aws_appautoscaling_policy.wake), queue.name) == (queue.workers_min == 0) &&
      contains(keys(aws_appautoscaling_policy.sleep), queue.name) == (queue.workers_min == 0) &&
      aws_appautoscaling_policy.backlog[queue.name].target_tracking_scaling_policy_configuration[0].disable_scale_in == (queue.workers_min == 0)
    ])
    error_message = "A queue with workers_min = 0 does not scale from zero, or its last worker is stopped while busy."
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

run "sizes_that_fargate_does_not_offer_are_refused" {
  command = plan

  variables {
    compute = { cpu_units = 256, memory_mib = 4096 }
  }

  expect_failures = [var.compute]
}

run "spot_is_only_for_workers_above_the_least" {
  command = plan

  variables {
    use_spot = true
  }

  assert {
    condition = alltrue([
      for queue in local.contract.queues : anytrue([
        for strategy in aws_ecs_service.worker[queue.name].capacity_provider_strategy :
        strategy.capacity_provider == "FARGATE" && strategy.base == queue.workers_min && strategy.weight == 0
      ])
    ])
    error_message = "The least number of workers is not safe from Spot."
  }
}
