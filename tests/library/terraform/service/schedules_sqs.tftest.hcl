# Schedules with the real provider. test_terraform.py takes their messages and expressions from this plan.

provider "aws" {
  region                      = "eu-west-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_data {
  target = data.aws_availability_zones.available
  values = { names = ["zone-a", "zone-b", "zone-c"] }
}

variables {
  contract    = jsondecode(file("../../../contract.json"))
  environment = "staging"
  image_tag   = "1"
}

run "no_schedules" {
  command = plan

  assert {
    condition = (
      length(aws_scheduler_schedule.this) + length(aws_scheduler_schedule_group.contract) + length(aws_scheduler_schedule_group.delayed) + length(aws_iam_role.scheduler) == 0 &&
      length(aws_sqs_queue.scheduler_dead_letters) == 0 &&
      !strcontains(jsonencode(values(data.aws_iam_policy_document.this)[*].json), "scheduler:") &&
      !contains(keys(local.environment), "SCHEDULER_ROLE_ARN")
    )
    error_message = "A service without schedules has something of EventBridge Scheduler."
  }
}

run "schedules" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/0"
    contract = merge(jsondecode(file("../../../contract.json")), {
      schedules = jsondecode(templatefile("tests/schedules.json", { queue = jsondecode(file("../../../contract.json")).queues[0].name }))
    })
  }

  assert {
    condition = alltrue([
      for name, schedule in aws_scheduler_schedule.this :
      schedule.group_name == local.name && schedule.state == (name == "off" ? "DISABLED" : "ENABLED") &&
      schedule.target[0].arn == "arn:aws:scheduler:::aws-sdk:sqs:sendMessage" &&
      schedule.target[0].dead_letter_config[0].arn == "arn:aws:sqs:${local.region}:123456789012:${aws_sqs_queue.scheduler_dead_letters["this"].name}" &&
      schedule.kms_key_arn == var.kms_key_arn
    ])
    error_message = "A schedule has another state, target, dead-letter queue or key."
  }

  assert {
    condition = (
      aws_scheduler_schedule.this["nightly"].flexible_time_window[0].maximum_window_in_minutes == 15 &&
      aws_scheduler_schedule.this["nightly"].schedule_expression_timezone == "Europe/Berlin" &&
      aws_scheduler_schedule.this["hourly"].flexible_time_window[0].mode == "OFF"
    )
    error_message = "A schedule has another window or time zone."
  }

  assert {
    condition = (
      jsondecode(data.aws_iam_policy_document.scheduler["this"].json).Statement[0].Action == "sqs:SendMessage" &&
      toset(jsondecode(data.aws_iam_policy_document.scheduler["this"].json).Statement[0].Resource) == toset([
        "arn:aws:sqs:${local.region}:123456789012:${aws_sqs_queue.main[local.contract.queues[0].name].name}",
        "arn:aws:sqs:${local.region}:123456789012:${local.name}-scheduler-dlq",
      ])
    )
    error_message = "EventBridge Scheduler may send to other queues than those of the schedules, or not to these."
  }

  assert {
    condition = (
      !aws_sqs_queue.scheduler_dead_letters["this"].fifo_queue &&
      contains(keys(aws_cloudwatch_metric_alarm.queue), "scheduler-dead-letters") &&
      !strcontains(data.aws_iam_policy_document.this["worker"].json, "scheduler:") &&
      !strcontains(data.aws_iam_policy_document.this["producer"].json, "scheduler:")
    )
    error_message = "The dead-letter queue is FIFO or has no alarm, or workers may create schedules."
  }
}

run "long_delays" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), { long_delays = true })
    network  = { internet_access = "none" }
  }

  assert {
    condition = alltrue([
      for who in ["worker", "producer"] : [
        for statement in jsondecode(data.aws_iam_policy_document.this[who].json).Statement : statement if contains(["Delay", "PassSchedulerRole"], statement.Sid)
        ] == [
        { Sid = "Delay", Effect = "Allow", Action = "scheduler:CreateSchedule", Resource = "arn:aws:scheduler:${local.region}:123456789012:schedule/${local.name}-delayed/*" },
        {
          Sid       = "PassSchedulerRole", Effect = "Allow", Action = "iam:PassRole", Resource = "arn:aws:iam::123456789012:role/${aws_iam_role.scheduler["this"].name}"
          Condition = { StringEquals = { "iam:PassedToService" = "scheduler.amazonaws.com" } }
        },
      ]
    ])
    error_message = "A worker or producer may not create exactly the schedules of delayed tasks."
  }

  assert {
    condition = (
      length(aws_scheduler_schedule_group.contract) == 0 &&
      length(aws_scheduler_schedule_group.delayed) == 1 &&
      local.environment.SCHEDULER_ROLE_ARN == "arn:aws:iam::123456789012:role/${aws_iam_role.scheduler["this"].name}" &&
      contains(local.interface_services, "scheduler") &&
      length(jsondecode(data.aws_iam_policy_document.scheduler["this"].json).Statement[0].Resource) == length(local.contract.queues) + 1
    )
    error_message = "The service lacks the group, the role or the endpoint for delayed tasks."
  }
}
