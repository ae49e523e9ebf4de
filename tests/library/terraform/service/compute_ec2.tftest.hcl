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
      for name, template in aws_launch_template.worker :
      contains(yamldecode(base64decode(template.user_data)).runcmd, "systemctl enable --now --no-block worker@${name} drain")
    ])
    error_message = "A machine runs another group's worker."
  }

  assert {
    condition = alltrue([
      for path, text in {
        "/etc/systemd/system/worker@.service.d/contract.conf" = "TimeoutStopSec=${local.contract.stop_timeout_seconds + 10}\n"
        "/etc/worker/machine.env"                             = "STOP_TIMEOUT_SECONDS=${local.contract.stop_timeout_seconds}\n"
      } : strcontains(local.machine_files[path], text)
    ])
    error_message = "A worker is killed before its soft shutdown is over."
  }

  assert {
    condition     = local.machine_files["/etc/worker/service.env"] == join("", [for name, value in output.environment : "${name}=${value}\n"])
    error_message = "A machine's environment is not what the outputs say."
  }

  assert {
    condition = alltrue([
      for template in aws_launch_template.worker : template.metadata_options[0].http_tokens == "required" && {
        for file in yamldecode(base64decode(template.user_data)).write_files : file.path => file.content
      } == local.machine_files
    ])
    error_message = "A machine gets other files than are meant for it, or gives its credentials away."
  }

  assert {
    condition     = startswith(local.machine_environment.SECRETS, "=") == (local.contract.credentials == "keys")
    error_message = "A machine gets other secrets than it needs."
  }

  assert {
    condition = alltrue([
      for worker in local.effective_workers :
      aws_autoscaling_group.worker[worker.name].min_size == worker.min &&
      aws_autoscaling_group.worker[worker.name].max_size == worker.max &&
      aws_autoscaling_lifecycle_hook.stop_worker[worker.name].heartbeat_timeout == local.contract.stop_timeout_seconds + 30
    ])
    error_message = "Scaling has other bounds than the contract, or a machine goes before its worker."
  }

  assert {
    condition = alltrue([
      for name, policy in aws_autoscaling_policy.backlog : policy.target_tracking_configuration[0].target_value == 1 && alltrue([
        for index, queue in local.workers[name].queues : alltrue([
          for metric in policy.target_tracking_configuration[0].customized_metric_specification[0].metrics :
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
      for name, policy in aws_autoscaling_policy.backlog : toset(flatten([
        for metric in policy.target_tracking_configuration[0].customized_metric_specification[0].metrics : [
          for stat in metric.metric_stat : [for dimension in stat.metric[0].dimensions : dimension.value]
        ]
      ])) == toset(concat(flatten([for queue in local.workers[name].queues : values(local.queue_metrics[queue].visible.dimensions)]), [aws_autoscaling_group.worker[name].name]))
    ])
    error_message = "Scaling follows other queues or counts another group's machines."
  }

  assert {
    condition = alltrue([
      for worker in local.effective_workers :
      contains(keys(aws_autoscaling_policy.from_zero), worker.name) == (worker.min == 0) &&
      contains(keys(aws_autoscaling_policy.to_zero), worker.name) == (worker.min == 0) &&
      aws_autoscaling_policy.backlog[worker.name].target_tracking_configuration[0].disable_scale_in == (worker.min == 0)
    ])
    error_message = "A worker with a min of 0 does not scale from zero, or its last worker is stopped while busy."
  }
}

run "instances_are_in_service_when_their_worker_is_ready" {
  command = plan

  assert {
    condition = alltrue([
      for worker in local.effective_workers :
      aws_autoscaling_lifecycle_hook.start_worker[worker.name].name == "start-worker" &&
      aws_autoscaling_lifecycle_hook.start_worker[worker.name].lifecycle_transition == "autoscaling:EC2_INSTANCE_LAUNCHING" &&
      aws_autoscaling_lifecycle_hook.start_worker[worker.name].default_result == "ABANDON"
    ])
    error_message = "An instance is in service without a worker that is ready."
  }

  # The hooks are created after the group, which starts its first instances at once.
  assert {
    condition = alltrue([
      for name, group in aws_autoscaling_group.worker : [
        for hook in group.initial_lifecycle_hook : [hook.name, hook.lifecycle_transition, hook.heartbeat_timeout, hook.default_result]
        ] == [[
          aws_autoscaling_lifecycle_hook.start_worker[name].name,
          aws_autoscaling_lifecycle_hook.start_worker[name].lifecycle_transition,
          aws_autoscaling_lifecycle_hook.start_worker[name].heartbeat_timeout,
          aws_autoscaling_lifecycle_hook.start_worker[name].default_result,
      ]]
    ])
    error_message = "The first instances of a group are in service without a worker that is ready."
  }

  # TimeoutStartSec applies to pulling the image and to the first poll.
  assert {
    condition = local.start_hook.timeout_seconds >= 120 + 2 * tonumber(
      regex("TimeoutStartSec=([0-9]+)", local.machine_files["/etc/systemd/system/worker@.service"])[0]
    )
    error_message = "An instance is terminated before its worker has had time to start."
  }

  # The provider's instanceRefreshCancelledTimeout.
  assert {
    condition     = local.start_hook.timeout_seconds <= 15 * 60 - 60
    error_message = "A rollback fails while it waits for an instance refresh to be cancelled."
  }

  assert {
    condition     = strcontains(local.machine_files["/etc/worker/machine.env"], "GROUP_PREFIX=${local.name}\n") && contains(local.compute_services, "autoscaling")
    error_message = "An instance does not know its group, or cannot reach EC2 Auto Scaling."
  }

  assert {
    condition = jsonencode([
      for statement in data.aws_iam_policy_document.lifecycle.statement : [sort(statement.actions), sort(statement.resources)]
      ]) == jsonencode([[
        ["autoscaling:CompleteLifecycleAction"],
        sort([
          for name in keys(aws_autoscaling_group.worker) :
          "arn:aws:autoscaling:${local.contract.region}:123456789012:autoScalingGroup:*:autoScalingGroupName/${local.contract.service}-staging-${name}"
        ]),
    ]])
    error_message = "An instance cannot complete its lifecycle actions, or can do more than that."
  }
}

run "workers_get_variables_and_secrets_of_the_owners" {
  command = plan

  variables {
    environment_variables = { PARTNER_URL = "https://partner.example" }
    secrets               = { PARTNER_KEY = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:partner-abcdef" }
  }

  assert {
    condition = (
      strcontains(local.machine_files["/etc/worker/service.env"], "PARTNER_URL=https://partner.example\n") &&
      strcontains(local.machine_files["/etc/worker/machine.env"], "TASK_SECRETS=PARTNER_KEY=${var.secrets.PARTNER_KEY}\n")
    )
    error_message = "A worker lacks a variable or a secret of the owner's."
  }
}

run "what_workers_on_machines_do_not_take_is_refused" {
  command = plan

  variables {
    compute = { instance_typ = "t4g.large" }
  }

  expect_failures = [var.compute]
}

run "the_longest_stop_timeout_fits_into_the_lifecycle_hook" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), { soft_shutdown_seconds = 7160, stop_timeout_seconds = 7170 })
  }

  # https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutLifecycleHook.html
  assert {
    condition     = alltrue([for hook in aws_autoscaling_lifecycle_hook.stop_worker : hook.heartbeat_timeout >= 30 && hook.heartbeat_timeout <= 7200])
    error_message = "AWS would refuse the lifecycle hook."
  }
}

run "sidecars_are_refused" {
  command = plan

  variables {
    compute = { sidecars = [{ name = "collector", image = "example/collector:1" }] }
  }

  expect_failures = [var.compute]
}

run "sizes_in_place_of_the_contracts_are_refused" {
  command = plan

  variables {
    compute = { instance_type = "t4g.large" }
  }

  expect_failures = [var.compute]
}

run "a_worker_of_two_queues_is_one_group" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues = [
        { name = "urgent", visibility_timeout_seconds = 960, acceptable_latency_seconds = 10, seconds_per_task = 5 },
        { name = "slow", visibility_timeout_seconds = 960, acceptable_latency_seconds = 600, seconds_per_task = 60 },
        { name = "alone" },
      ]
      workers = [{ name = "both", queues = ["urgent", "slow"], concurrency = 2, min = 1, max = 3, instance_type = "m7g.large" }]
    })
  }

  assert {
    condition = (
      { for name, group in aws_autoscaling_group.worker : name => group.name } == {
        alone = "${local.contract.service}-staging-alone"
        both  = "${local.contract.service}-staging-both"
      } &&
      toset(keys(aws_autoscaling_policy.backlog)) == toset(["both", "alone"]) &&
      aws_autoscaling_group.worker["both"].max_size == 3
    )
    error_message = "A worker is not one group, or a queue that no worker lists has no worker of its name."
  }

  assert {
    condition = (
      contains(yamldecode(base64decode(aws_launch_template.worker["both"].user_data)).runcmd, "systemctl enable --now --no-block worker@both drain") &&
      aws_launch_template.worker["both"].instance_type == "m7g.large" &&
      aws_launch_template.worker["alone"].instance_type == local.contract.worker_defaults.instance_type
    )
    error_message = "A machine runs another worker, or has another size than the contract says."
  }

  assert {
    condition = {
      for metric in aws_autoscaling_policy.backlog["both"].target_tracking_configuration[0].customized_metric_specification[0].metrics :
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
      for worker in local.effective_workers :
      aws_autoscaling_group.worker[worker.name].mixed_instances_policy[0].instances_distribution[0].on_demand_base_capacity == worker.min
    ])
    error_message = "The least number of workers is not safe from Spot."
  }

  assert {
    condition = alltrue([
      for name, group in aws_autoscaling_group.worker : (
        group.mixed_instances_policy[0].launch_template[0].override[0].instance_type == local.workers[name].instance_type &&
        length(distinct(group.mixed_instances_policy[0].launch_template[0].override[*].instance_type)) >= 2 &&
        group.mixed_instances_policy[0].instances_distribution[0].on_demand_allocation_strategy == "prioritized"
      )
    ])
    error_message = "Spot depends on one instance type, or On-Demand Instances have another type than the worker's."
  }
}

run "spot_instances_have_the_types_of_the_owner" {
  command = plan

  variables {
    use_spot = true
    compute  = { spot_instance_types = ["m7g.large", "m6g.large"] }
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues  = [{ name = "alone" }]
      workers = [{ name = "alone", queues = ["alone"], instance_type = "m7g.large" }]
    })
  }

  assert {
    condition     = aws_autoscaling_group.worker["alone"].mixed_instances_policy[0].launch_template[0].override[*].instance_type == tolist(["m7g.large", "m6g.large"])
    error_message = "The worker's own type is not first, or others are not the owner's."
  }
}

run "machines_without_spot_have_one_type" {
  command = plan

  assert {
    condition = alltrue([
      for name, group in aws_autoscaling_group.worker :
      group.mixed_instances_policy[0].launch_template[0].override[*].instance_type == tolist([local.workers[name].instance_type])
    ])
    error_message = "An On-Demand Instance may have another type than the worker's."
  }
}

run "machines_have_the_owners_boundary_tags_and_addresses" {
  command = plan

  variables {
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/limited"
    network                  = { internet_access = "public" }
  }

  override_data {
    target = data.aws_default_tags.current
    values = { tags = { Team = "payments" } }
  }

  assert {
    condition     = aws_iam_role.workers.permissions_boundary == var.permissions_boundary_arn
    error_message = "The machines' role is not limited by the boundary."
  }

  assert {
    condition = alltrue([
      for template in aws_launch_template.worker :
      template.network_interfaces[0].associate_public_ip_address == "true" &&
      { for specification in template.tag_specifications : specification.resource_type => specification.tags["Team"] } == { instance = "payments", network-interface = "payments", volume = "payments" }
    ])
    error_message = "Machines lack the owner's tags, or a way to the internet."
  }
}
