# The plan of the beat with a mock provider; see compute_ec2.tftest.hcl.

mock_provider "aws" {
  source          = "./mocks"
  override_during = plan
}

override_resource {
  target          = aws_iam_policy.this["producer"]
  override_during = plan
  values          = { arn = "arn:aws:iam::123456789012:policy/producer" }
}

override_resource {
  target          = aws_iam_instance_profile.beat
  override_during = plan
  values          = { arn = "arn:aws:iam::123456789012:instance-profile/beat" }
}

variables {
  contract    = jsondecode(file("../../../contract.json"))
  environment = "staging"
  image_tag   = "1"
}

run "there_is_none_without_schedules" {
  command = plan

  assert {
    condition = toset(keys(aws_autoscaling_group.worker)) == toset(local.effective_workers[*].name) && length(aws_iam_role.beat) + length(
      aws_iam_instance_profile.beat
      ) + length(aws_iam_role_policy.run_beat) + length(aws_cloudwatch_metric_alarm.beat_gone) + length(
      aws_cloudwatch_log_metric_filter.beat_failures
    ) == 0
    error_message = "A beat runs, or has permissions, without schedules."
  }

  assert {
    condition = alltrue([
      for group in aws_autoscaling_group.worker : group.instance_refresh[0].preferences[0].min_healthy_percentage == 100
    ])
    error_message = "A deployment stops workers before new ones run."
  }
}

run "beat" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues    = concat(jsondecode(file("../../../contract.json")).queues, [{ name = "beat" }])
      schedules = [{ name = "nightly", task = "tasks.any", cron = "0 3 * * *", enabled = false }]
    })
    use_spot = true
  }

  assert {
    condition = (
      aws_autoscaling_group.worker["Beat"].min_size == 1 &&
      aws_autoscaling_group.worker["Beat"].max_size == 1 &&
      aws_autoscaling_group.worker["Beat"].instance_refresh[0].preferences[0].min_healthy_percentage == 0 &&
      aws_autoscaling_group.worker["Beat"].instance_refresh[0].preferences[0].max_healthy_percentage == 100 &&
      aws_autoscaling_group.worker["Beat"].mixed_instances_policy[0].instances_distribution[0].on_demand_base_capacity == 1 &&
      !contains(keys(aws_autoscaling_policy.backlog), "Beat")
    )
    error_message = "There can be two beats, or it can be reclaimed."
  }

  assert {
    condition = (
      aws_autoscaling_group.worker["Beat"].name == "${local.name}-Beat" &&
      aws_autoscaling_group.worker["beat"].name == "${local.name}-beat" &&
      contains(yamldecode(base64decode(aws_launch_template.worker["Beat"].user_data)).runcmd, "systemctl enable --now --no-block worker@Beat drain") &&
      aws_launch_template.worker["Beat"].instance_type == "t4g.micro"
    )
    error_message = "A machine runs something else than the beat, or a worker is lost to it."
  }

  assert {
    condition = (
      aws_launch_template.worker["Beat"].iam_instance_profile[0].arn == "arn:aws:iam::123456789012:instance-profile/beat" &&
      aws_launch_template.worker["beat"].iam_instance_profile[0].arn == aws_iam_instance_profile.workers.arn &&
      aws_iam_instance_profile.beat["Beat"].role == aws_iam_role.beat["Beat"].name &&
      aws_iam_role_policy_attachment.beat["Beat"].policy_arn == "arn:aws:iam::123456789012:policy/producer" &&
      aws_iam_role_policy.run_beat["Beat"].role == aws_iam_role.beat["Beat"].name
    )
    error_message = "The beat has other permissions than a producer."
  }

  # To start the image with its secrets, and to tell its own group that it has.
  assert {
    condition = (
      length(data.aws_iam_policy_document.run_beat["Beat"].source_policy_documents) == 2 + (local.contract.credentials == "keys" ? 1 : 0) &&
      [for statement in data.aws_iam_policy_document.run_beat["Beat"].statement : [for resource in statement.resources : endswith(resource, "/${local.name}-Beat")]] == [[true]]
    )
    error_message = "The beat's instance cannot start it, or completes what others wait for."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.beat_gone["Beat"].dimensions == tomap({ AutoScalingGroupName = aws_autoscaling_group.worker["Beat"].name }) &&
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
    condition     = aws_autoscaling_group.worker["Beat"].max_size == 0 && length(aws_cloudwatch_metric_alarm.beat_gone) == 0
    error_message = "A beat without an image is started, or missed."
  }
}
