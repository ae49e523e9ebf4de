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
    error_message = "A machine runs another queue's worker."
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
      for queue in local.contract.queues :
      aws_autoscaling_group.worker[queue.name].min_size == queue.workers_min &&
      aws_autoscaling_group.worker[queue.name].max_size == queue.workers_max &&
      aws_autoscaling_lifecycle_hook.stop_worker[queue.name].heartbeat_timeout >= min(7200, local.contract.stop_timeout_seconds + 10)
    ])
    error_message = "Scaling has other bounds than the contract, or a machine goes before its worker."
  }

  assert {
    condition = alltrue([
      for queue in local.contract.queues :
      aws_autoscaling_policy.backlog[queue.name].target_tracking_configuration[0].target_value * queue.seconds_per_task <= max(queue.seconds_per_task, queue.acceptable_latency_seconds * queue.concurrency)
    ])
    error_message = "Scaling lets more wait for a worker than it clears within the acceptable latency."
  }

  assert {
    condition = alltrue([
      for name, policy in aws_autoscaling_policy.backlog : toset(flatten([
        for metric in policy.target_tracking_configuration[0].customized_metric_specification[0].metrics : [
          for stat in metric.metric_stat : [for dimension in stat.metric[0].dimensions : dimension.value]
        ]
      ])) == toset(concat(values(local.queue_metrics[name].visible.dimensions), [aws_autoscaling_group.worker[name].name]))
    ])
    error_message = "Scaling follows another queue or counts another group's machines."
  }

  assert {
    condition = alltrue([
      for queue in local.contract.queues :
      contains(keys(aws_autoscaling_policy.wake), queue.name) == (queue.workers_min == 0) &&
      contains(keys(aws_autoscaling_policy.sleep), queue.name) == (queue.workers_min == 0) &&
      aws_autoscaling_policy.backlog[queue.name].target_tracking_configuration[0].disable_scale_in == (queue.workers_min == 0)
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

run "spot_is_only_for_workers_above_the_least" {
  command = plan

  variables {
    use_spot = true
  }

  assert {
    condition = alltrue([
      for queue in local.contract.queues :
      aws_autoscaling_group.worker[queue.name].mixed_instances_policy[0].instances_distribution[0].on_demand_base_capacity == queue.workers_min
    ])
    error_message = "The least number of workers is not safe from Spot."
  }
}
