# Schedules of the contract: EventBridge Scheduler sends their messages to SQS. And the permissions
# for delayed tasks that no queue can hold, for which the service itself creates one-time schedules.

locals {
  long_delays    = try(local.contract.long_delays, false)
  has_schedules  = length(try(local.contract.schedules, [])) > 0 # Also one whose date is over: its message may be unsent.
  uses_scheduler = local.has_schedules || local.long_delays ? { this = true } : {}

  # A date that is over in every time zone would be refused.
  contract_schedules = [
    for schedule in try(local.contract.schedules, []) : schedule
    if try(timecmp("${schedule.at}Z", timeadd(plantimestamp(), "-14h")) > 0, true)
  ]

  # Arguments stay in the contract's own value, because those of two schedules differ in type.
  schedules = {
    for schedule in local.contract_schedules : schedule.name => {
      # The module of a queue has its tasks, unless the schedule names another queue.
      task = anytrue([for module in values(local.task_modules) : startswith(schedule.task, "${module}.")]) ? (
        "${local.contract.package}.tasks.${schedule.task}"
      ) : schedule.task
      stated_queue = try(schedule.queue, "")
      # `{scheduled_time}` stands in arguments for the time at which the task is due.
      arguments      = jsonencode([try(schedule.args, []), try(schedule.kwargs, {}), local.nothing_follows])
      cron           = try(schedule.cron, "")
      rate_minutes   = try(schedule.rate_minutes, 0)
      at             = try(schedule.at, "")
      timezone       = try(schedule.timezone, "UTC")
      group          = try(schedule.group, "")
      is_enabled     = try(schedule.enabled, true)
      window_minutes = try(schedule.flexible_window_minutes, 0)
    }
  }
  task_modules    = { for queue in local.effective_queues : queue.name => replace(queue.name, "-", "_") }
  nothing_follows = { callbacks = null, errbacks = null, chain = null, chord = null }
  schedule_queues = {
    for name, schedule in local.schedules : name => schedule.stated_queue != "" ? schedule.stated_queue : [
      for queue, module in local.task_modules : queue if startswith(schedule.task, "${local.contract.package}.tasks.${module}.")
    ][0]
  }

  # The same time for every attempt to send a message, so that a message that is sent twice is one
  # task. The id of an execution differs between attempts.
  # https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
  scheduled_time = "<aws.scheduler.scheduled-time>"
  task_ids       = { for name in keys(local.schedules) : name => "${name}-{scheduled_time}" }

  # The message that `celery_aws.schedules.send` would send.
  # https://docs.celeryq.dev/en/stable/internals/protocol.html#version-2
  schedule_messages = {
    for name, schedule in local.schedules : name => {
      body             = schedule.arguments
      content-encoding = "utf-8"
      content-type     = "application/json"
      headers = {
        lang                  = "py"
        task                  = schedule.task
        id                    = local.task_ids[name]
        root_id               = local.task_ids[name]
        parent_id             = null
        group                 = null
        group_index           = null
        shadow                = null
        eta                   = null
        expires               = null
        retries               = 0
        timelimit             = [null, null]
        ignore_result         = null
        replaced_task_nesting = 0
        stamped_headers       = null
        stamps                = {}
        origin                = "scheduler"
        scheduled_time        = "{scheduled_time}"
      }
      properties = merge(
        {
          correlation_id = local.task_ids[name]
          reply_to       = local.task_ids[name]
          delivery_mode  = 2
          priority       = 0
          body_encoding  = null
          delivery_tag   = local.task_ids[name]
          delivery_info = {
            exchange    = ""
            routing_key = "${local.schedule_queues[name]}${local.queues[local.schedule_queues[name]].fifo ? ".fifo" : ""}"
          }
        },
        local.schedule_properties[name],
      )
    }
  }
  schedule_properties = {
    for name, schedule in local.schedules : name => merge(
      schedule.group == "" ? {} : { MessageGroupId = schedule.group },
      local.queues[local.schedule_queues[name]].fifo ? { MessageDeduplicationId = "${local.task_ids[name]}:0:0" } : {},
    )
  }

  # A cron expression with five fields becomes one with six: lists of values, days of the week from 1
  # for Sunday, and `?` for the day that says nothing; celery_aws/contract/schedules.py does the same.
  # https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#cron-based
  cron_bounds = [[0, 59], [0, 23], [1, 31], [1, 12], [0, 7]]
  cron_names = merge(
    { for index, name in ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] : name => tostring(index) },
    { for index, name in ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] : name => tostring(index + 1) },
  )
  cron_fields = { for name, schedule in local.schedules : name => compact(split(" ", lower(schedule.cron))) if schedule.cron != "" }
  # The first and the last value and the step of each item.
  cron_items = {
    for name, fields in local.cron_fields : name => [
      for index, field in fields : [
        for item in split(",", field) : {
          first = startswith(item, "*") ? local.cron_bounds[index][0] : tonumber(lookup(local.cron_names, regex("^\\w+", item), regex("^\\w+", item)))
          last = (
            startswith(item, "*") ? local.cron_bounds[index][1] :
            strcontains(item, "-") ? tonumber(lookup(local.cron_names, regex("-(\\w+)", item)[0], regex("-(\\w+)", item)[0])) :
            strcontains(item, "/") ? local.cron_bounds[index][1] :
            tonumber(lookup(local.cron_names, item, item))
          )
          step = strcontains(item, "/") ? tonumber(split("/", item)[1]) : 1
        }
      ]
    ]
  }
  cron_values = {
    for name, fields in local.cron_items : name => [
      for index, items in fields : distinct(flatten([
        for item in items : [for value in range(item.first, item.last + 1, item.step) : index == 4 ? value % 7 + 1 : value]
      ]))
    ]
  }
  # As text of the same length, values are in order.
  cron_texts = {
    for name, fields in local.cron_values : name => [
      for index, values in fields : local.cron_fields[name][index] == "*" ? "*" : join(",", [
        for value in sort([for value in values : format("%02d", value)]) : tonumber(value)
      ])
    ]
  }
  schedule_expressions = {
    for name, schedule in local.schedules : name => (
      schedule.at != "" ? "at(${schedule.at})" :
      schedule.rate_minutes > 0 ? "rate(${schedule.rate_minutes} ${schedule.rate_minutes == 1 ? "minute" : "minutes"})" :
      "cron(${join(" ", slice(local.cron_texts[name], 0, 2))} ${local.cron_texts[name][4] == "*" ? local.cron_texts[name][2] : "?"} ${local.cron_texts[name][3]} ${local.cron_texts[name][4] == "*" ? "?" : local.cron_texts[name][4]} *)"
    )
  }

  schedule_groups           = concat(local.has_schedules ? [local.name] : [], local.long_delays ? ["${local.name}-delayed"] : [])
  scheduler_arn             = "arn:${local.partition}:scheduler:${local.region}:${local.account}"
  delayed_arn               = "${local.scheduler_arn}:schedule/${local.name}-delayed/*"
  scheduler_role_name       = "${local.global_name}-scheduler"
  scheduler_role_arn        = "arn:${local.partition}:iam::${local.account}:role/${local.scheduler_role_name}"
  scheduler_dead_letters    = "${local.name}-scheduler-dlq"
  scheduler_dead_letter_arn = "arn:${local.partition}:sqs:${local.region}:${local.account}:${local.scheduler_dead_letters}"

  # For the service, which creates the schedules of delayed tasks.
  scheduler_environment = {
    for name, value in { SCHEDULER_ROLE_ARN = local.scheduler_role_arn, SCHEDULER_KMS_KEY_ARN = var.kms_key_arn } :
    name => value if local.long_delays && value != ""
  }
  scheduler_interface_services = local.long_delays ? ["scheduler"] : []
  scheduler_sender_statements = { for sid, statement in {
    Delay = { actions = ["scheduler:CreateSchedule"], resources = [local.delayed_arn] }
    PassSchedulerRole = {
      actions    = ["iam:PassRole"]
      resources  = [local.scheduler_role_arn]
      conditions = { "iam:PassedToService" = "scheduler.amazonaws.com" }
    }
    # Whoever creates a schedule must be able to look at its key.
    # https://docs.aws.amazon.com/scheduler/latest/UserGuide/encryption-rest.html
    LookAtOwnKey = { actions = ["kms:DescribeKey"], resources = [var.kms_key_arn] }
  } : sid => statement if local.long_delays && (sid != "LookAtOwnKey" || var.kms_key_arn != "") }
  scheduler_operator_statements = { for sid, statement in {
    # ListSchedules supports no resource but "*".
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridgescheduler.html
    ListSchedules = {
      actions    = ["scheduler:ListSchedules"]
      resources  = ["*"]
      conditions = { "aws:RequestedRegion" = local.region }
    }
    ReadSchedules = {
      actions   = ["scheduler:GetSchedule"]
      resources = ["${local.scheduler_arn}:schedule/${local.name}/*", local.delayed_arn]
    }
    CancelDelayed = { actions = ["scheduler:DeleteSchedule"], resources = [local.delayed_arn] }
  } : sid => statement if length(local.uses_scheduler) > 0 }
  scheduler_alarms = { for key, alarm in {
    "scheduler-dead-letters" = {
      section     = "scheduler-dead-letters"
      description = "EventBridge Scheduler could not send messages to the queues; they are in ${local.scheduler_dead_letters}."
      namespace   = "AWS/SQS"
      metric      = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = local.scheduler_dead_letters }
      statistic   = "Maximum"
      threshold   = 0
      minutes     = 1
    }
  } : key => alarm if length(local.uses_scheduler) > 0 }
}

resource "aws_scheduler_schedule_group" "contract" {
  for_each = local.has_schedules ? { this = true } : {}
  name     = local.name
}

# EventBridge Scheduler deletes a group with the delayed tasks in it, so prevent_destroy fails the
# plan, as for queues.
# https://docs.aws.amazon.com/scheduler/latest/APIReference/API_DeleteScheduleGroup.html
resource "aws_scheduler_schedule_group" "delayed" { # docs/schedules.md says how to turn long delays off
  for_each = local.long_delays ? { this = true } : {}
  name     = "${local.name}-delayed"

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_scheduler_schedule" "this" {
  for_each = local.schedules

  name                         = each.key
  group_name                   = aws_scheduler_schedule_group.contract["this"].name
  description                  = "Sends ${each.value.task}"
  schedule_expression          = local.schedule_expressions[each.key]
  schedule_expression_timezone = each.value.timezone
  state                        = each.value.is_enabled ? "ENABLED" : "DISABLED"
  kms_key_arn                  = local.own_key

  flexible_time_window {
    mode                      = each.value.window_minutes > 0 ? "FLEXIBLE" : "OFF"
    maximum_window_in_minutes = each.value.window_minutes > 0 ? each.value.window_minutes : null
  }

  target {
    # The target for SQS's own API takes message attributes and deduplication ids; the one for queues
    # does not.
    # https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets-universal.html
    arn      = "arn:${local.partition}:scheduler:::aws-sdk:sqs:sendMessage"
    role_arn = aws_iam_role.scheduler["this"].arn
    input = replace(
      jsonencode(merge(local.schedule_properties[each.key], {
        QueueUrl    = local.queue_urls[local.schedule_queues[each.key]]
        MessageBody = jsonencode(local.schedule_messages[each.key])
      })),
      "{scheduled_time}",
      local.scheduled_time,
    )

    # After an hour, a message that could not be sent goes to the dead-letter queue.
    retry_policy {
      maximum_event_age_in_seconds = 3600
      maximum_retry_attempts       = 185
    }
    dead_letter_config {
      arn = local.scheduler_dead_letter_arn
    }
  }

  # EventBridge Scheduler tries to use the role as soon as the schedule is there.
  depends_on = [aws_iam_role_policy.scheduler, aws_sqs_queue.scheduler_dead_letters]
}

# Standard, whatever the kind of the other queues: EventBridge Scheduler supports no FIFO queue here.
# https://docs.aws.amazon.com/scheduler/latest/UserGuide/configuring-schedule-dlq.html
resource "aws_sqs_queue" "scheduler_dead_letters" {
  for_each = local.uses_scheduler

  name                      = local.scheduler_dead_letters
  message_retention_seconds = local.contract.dead_letter_retention_seconds
  sqs_managed_sse_enabled   = local.own_key == null ? true : null
  kms_master_key_id         = local.own_key
  policy                    = data.aws_iam_policy_document.tls_only[local.scheduler_dead_letter_arn].json
}

data "aws_iam_policy_document" "trust_scheduler" {
  for_each = local.uses_scheduler

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }
    # https://docs.aws.amazon.com/scheduler/latest/UserGuide/cross-service-confused-deputy-prevention.html
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [for name in local.schedule_groups : "${local.scheduler_arn}:schedule-group/${name}"]
    }
  }
}

resource "aws_iam_role" "scheduler" {
  for_each = local.uses_scheduler

  name                 = local.scheduler_role_name
  assume_role_policy   = data.aws_iam_policy_document.trust_scheduler[each.key].json
  permissions_boundary = local.boundary
}

data "aws_iam_policy_document" "scheduler" {
  for_each = local.uses_scheduler

  statement {
    sid     = "Send"
    actions = ["sqs:SendMessage"]
    resources = concat([local.scheduler_dead_letter_arn], [
      for name, queue in local.broker_queues : queue.arn if local.long_delays || contains(values(local.schedule_queues), name)
    ])
  }

  dynamic "statement" {
    for_each = local.own_key[*]
    content {
      sid       = "UseOwnKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role_policy" "scheduler" {
  for_each = local.uses_scheduler

  name   = "send"
  role   = aws_iam_role.scheduler[each.key].name
  policy = data.aws_iam_policy_document.scheduler[each.key].json
}
