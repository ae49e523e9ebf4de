# The plan of SQS with the real provider; see plan.tftest.hcl.

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

run "queues" {
  command = plan

  assert {
    condition = alltrue([
      for queue in local.contract.queues :
      aws_sqs_queue.main[queue.name].visibility_timeout_seconds == queue.visibility_timeout_seconds &&
      aws_sqs_queue.main[queue.name].message_retention_seconds == queue.retention_seconds &&
      aws_sqs_queue.main[queue.name].receive_wait_time_seconds == local.contract.wait_time_seconds &&
      aws_sqs_queue.dead_letters[queue.name].message_retention_seconds == local.contract.dead_letter_retention_seconds
    ])
    error_message = "A queue's numbers are not the contract's."
  }

  assert {
    condition = alltrue([
      for name, queue in aws_sqs_queue.main :
      queue.name == join("", [local.contract.service, "-staging-", name, local.contract.broker == "sqs-fifo" ? ".fifo" : ""]) &&
      aws_sqs_queue.dead_letters[name].name == join("", [local.contract.service, "-staging-", name, "-dlq", local.contract.broker == "sqs-fifo" ? ".fifo" : ""]) &&
      queue.fifo_queue == (local.contract.broker == "sqs-fifo") &&
      aws_sqs_queue.dead_letters[name].fifo_queue == queue.fifo_queue
    ])
    error_message = "A queue's name or kind is not what the service expects."
  }

  assert {
    condition = alltrue([
      for queue in local.contract.queues : jsondecode(aws_sqs_queue.main[queue.name].redrive_policy) == {
        deadLetterTargetArn = "arn:aws:sqs:${local.contract.region}:123456789012:${aws_sqs_queue.dead_letters[queue.name].name}"
        maxReceiveCount     = queue.max_receive_count
      }
    ])
    error_message = "A queue does not dead-letter into its own dead-letter queue after max_receive_count deliveries."
  }

  assert {
    condition = alltrue([
      for name, queue in aws_sqs_queue.dead_letters :
      jsondecode(queue.redrive_allow_policy).redrivePermission == "byQueue" &&
      jsondecode(queue.redrive_allow_policy).sourceQueueArns[0] == "arn:aws:sqs:${local.contract.region}:123456789012:${aws_sqs_queue.main[name].name}"
    ])
    error_message = "A dead-letter queue takes messages of another queue than its own."
  }

  assert {
    condition = alltrue([
      for queue in concat(values(aws_sqs_queue.main), values(aws_sqs_queue.dead_letters)) :
      queue.sqs_managed_sse_enabled &&
      jsondecode(queue.policy).Statement[0].Effect == "Deny" &&
      jsondecode(queue.policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"
    ])
    error_message = "A queue is not encrypted or can be reached in plain text."
  }

  # Policies, as sent to AWS.

  assert {
    condition = jsonencode(sort(distinct(flatten([
      for statement in jsondecode(data.aws_iam_policy_document.this["producer"].json).Statement : statement.Action if strcontains(jsonencode(statement.Action), "sqs:")
    ])))) == jsonencode(["sqs:SendMessage"])
    error_message = "A producer may do more than send."
  }

  assert {
    condition = jsonencode(sort(distinct(flatten([
      for statement in jsondecode(data.aws_iam_policy_document.this["worker"].json).Statement : statement.Action if strcontains(jsonencode(statement.Action), "sqs:")
    ])))) == jsonencode(["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage", "sqs:SendMessage"])
    error_message = "A worker has other permissions than it needs."
  }

  assert {
    condition = jsonencode({
      for statement in jsondecode(data.aws_iam_policy_document.this["worker"].json).Statement : statement.Sid => sort(flatten([statement.Resource])) if contains(["Work", "Send"], statement.Sid)
      }) == jsonencode({
      Work = sort([for queue in aws_sqs_queue.main : "arn:aws:sqs:${local.contract.region}:123456789012:${queue.name}"])
      Send = sort([for queue in concat(values(aws_sqs_queue.main), values(aws_sqs_queue.dead_letters)) : "arn:aws:sqs:${local.contract.region}:123456789012:${queue.name}"])
    })
    error_message = "A worker uses other queues than the service's, or receives messages from dead-letter queues."
  }

  assert {
    condition = jsonencode({
      for statement in jsondecode(data.aws_iam_policy_document.this["operator"].json).Statement : statement.Sid => sort(flatten([statement.Resource])) if statement.Sid == "HandleDeadLetters"
      }) == jsonencode({
      HandleDeadLetters = sort([for queue in aws_sqs_queue.dead_letters : "arn:aws:sqs:${local.contract.region}:123456789012:${queue.name}"])
    })
    error_message = "An operator can receive or purge messages of queues that are not dead-letter queues."
  }

  assert {
    condition = {
      for statement in jsondecode(data.aws_iam_policy_document.this["operator"].json).Statement : statement.Sid => {
        action    = statement.Action
        resource  = statement.Resource
        condition = try(statement.Condition.StringEquals["aws:RequestedRegion"], "")
      } if contains(["ListQueues", "CountMessages"], statement.Sid)
      } == {
      ListQueues    = { action = "sqs:ListQueues", resource = "*", condition = local.contract.region }
      CountMessages = { action = "sqs:GetQueueAttributes", resource = "arn:aws:sqs:${local.contract.region}:123456789012:${local.contract.service}-staging-*", condition = "" }
    }
    error_message = "An operator could not find queues that left the contract, or may do more to them than count messages."
  }

  assert {
    condition = alltrue(flatten([
      for policy in ["producer", "worker"] : [
        for statement in jsondecode(data.aws_iam_policy_document.this[policy].json).Statement : [
          for action in flatten([statement.Action]) :
          contains(["sqs", lookup({ s3 = "s3", dynamodb = "dynamodb" }, local.contract.results, "sqs")], split(":", action)[0])
        ]
      ]
    ]))
    error_message = "A policy names services that the chosen result backend does not need."
  }

  # Alarms

  assert {
    condition = alltrue([
      for queue in local.contract.queues :
      aws_cloudwatch_metric_alarm.queue["${queue.name}-dead-letters"].dimensions.QueueName == aws_sqs_queue.dead_letters[queue.name].name &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-dead-letters"].metric_name == "ApproximateNumberOfMessagesVisible" &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-dead-letters"].threshold == 0 &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-age"].dimensions.QueueName == aws_sqs_queue.main[queue.name].name &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-age"].metric_name == "ApproximateAgeOfOldestMessage" &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-age"].threshold > queue.hard_limit_seconds + queue.acceptable_latency_seconds &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-backlog"].threshold >= queue.workers_max &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-empty-receives"].threshold > queue.workers_max * 60 / (20 + 1)
    ])
    error_message = "An alarm has the wrong queue, metric or threshold."
  }

  assert {
    condition = alltrue([
      for name, alarm in aws_cloudwatch_metric_alarm.nobody_works :
      toset(flatten([for query in alarm.metric_query : [for metric in query.metric : metric.dimensions.QueueName]])) == toset([aws_sqs_queue.main[name].name])
    ])
    error_message = "The alarm for queues without consumers watches another queue."
  }
}

run "queues_with_the_owners_key" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/1"
  }

  assert {
    condition = alltrue([
      for queue in concat(values(aws_sqs_queue.main), values(aws_sqs_queue.dead_letters)) : queue.kms_master_key_id == var.kms_key_arn
    ])
    error_message = "A queue is not encrypted with the owner's key."
  }
}

run "trail_tells_who_touches_dead_letters" {
  command = plan

  variables {
    broker = { keep_trail_days = 90 }
  }

  assert {
    condition = anytrue([
      for selector in aws_cloudtrail.this["this"].advanced_event_selector : anytrue([
        for field in selector.field_selector : field.field == "resources.ARN" && toset(field.equals) == toset(local.dead_letter_arns)
      ])
    ])
    error_message = "The trail does not record access to dead-letter messages."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_s3_bucket_policy.trail["this"].policy).Statement :
      statement.Condition.StringEquals["aws:SourceArn"] == local.trail_arn if statement.Effect == "Allow"
    ])
    error_message = "Somebody else's trail may write into the bucket."
  }
}

run "a_trail_is_kept_for_whole_days" {
  command = plan

  variables {
    broker = { keep_trail_days = 1.5 }
  }

  expect_failures = [var.broker]
}

run "what_the_queues_do_not_take_is_refused" {
  command = plan

  variables {
    broker = { keep_trail_day = 90 }
  }

  expect_failures = [var.broker]
}
