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
      for queue in local.effective_queues :
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
      for queue in local.effective_queues : jsondecode(aws_sqs_queue.main[queue.name].redrive_policy) == {
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
      for queue in local.effective_queues :
      aws_cloudwatch_metric_alarm.queue["${queue.name}-dead-letters"].dimensions.QueueName == aws_sqs_queue.dead_letters[queue.name].name &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-dead-letters"].metric_name == "ApproximateNumberOfMessagesVisible" &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-dead-letters"].threshold == 0 &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-age"].dimensions.QueueName == aws_sqs_queue.main[queue.name].name &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-age"].metric_name == "ApproximateAgeOfOldestMessage" &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-age"].threshold > queue.hard_limit_seconds + queue.acceptable_latency_seconds &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-backlog"].threshold >= local.worker_of[queue.name].max &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-empty-receives"].threshold > local.worker_of[queue.name].max * 60 / (20 + 1)
    ])
    error_message = "An alarm has the wrong queue, metric or threshold."
  }

  assert {
    condition = alltrue([
      for name, alarm in aws_cloudwatch_metric_alarm.no_consumers :
      toset(flatten([for query in alarm.metric_query : [for metric in query.metric : metric.dimensions.QueueName]])) ==
      toset([for queue in local.workers[name].queues : aws_sqs_queue.main[queue].name])
    ])
    error_message = "The alarm for queues without consumers watches other queues."
  }
}

run "a_worker_of_two_queues_is_watched_as_one" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues = [
        { name = "urgent", visibility_timeout_seconds = 960, acceptable_latency_seconds = 10, seconds_per_task = 5 },
        { name = "slow", visibility_timeout_seconds = 960, acceptable_latency_seconds = 600, seconds_per_task = 60 },
        { name = "alone" },
      ]
      workers = [{ name = "both", queues = ["urgent", "slow"], concurrency = 2, min = 0, max = 3 }]
    })
  }

  assert {
    condition = (
      toset(keys(aws_cloudwatch_metric_alarm.no_consumers)) == toset(["both", "alone"]) &&
      toset(keys(aws_cloudwatch_metric_alarm.from_zero)) == toset(["both"]) &&
      toset(keys(aws_cloudwatch_metric_alarm.to_zero)) == toset(["both"])
    )
    error_message = "A worker is watched or scaled by queue."
  }

  assert {
    condition = {
      for what, alarm in {
        no_consumers = aws_cloudwatch_metric_alarm.no_consumers["both"]
        no_workers   = aws_cloudwatch_metric_alarm.from_zero["both"]
        all          = aws_cloudwatch_metric_alarm.to_zero["both"]
        } : what => {
        expression = one([for query in alarm.metric_query : query.expression if query.id == what])
        metrics    = { for query in alarm.metric_query : query.id => query.metric[0].dimensions.QueueName if query.id != what && query.id != "running" }
      }
      } == {
      for what, expression in {
        no_consumers = "IF(FILL(FILL(visible0, REPEAT), 0) + FILL(FILL(visible1, REPEAT), 0) > 0 AND FILL(received0, 0) + FILL(empty0, 0) + FILL(in_flight0, 0) + FILL(in_flight1, 0) == 0, 1, 0)"
        no_workers   = "IF(FILL(FILL(visible0, REPEAT), 0) + FILL(FILL(visible1, REPEAT), 0) > 0 AND FILL(FILL(running, REPEAT), 0) == 0, 1, 0)"
        all          = "visible0 + visible1 + FILL(in_flight0, 0) + FILL(in_flight1, 0) + FILL(delayed0, 0) + FILL(delayed1, 0)"
        } : what => {
        expression = expression
        metrics = {
          for id in distinct(flatten(regexall("([a-z_]+[0-9])", expression))) : id => local.queues[endswith(id, "0") ? "urgent" : "slow"].queue_name
        }
      }
    }
    error_message = "An alarm does not watch all queues of the worker."
  }

  assert {
    condition = {
      for queue in ["urgent", "slow"] : queue => [
        for kind in ["backlog", "empty-receives"] : aws_cloudwatch_metric_alarm.queue["${queue}-${kind}"].threshold
      ]
      } == {
      urgent = [4 * 3, ceil(3 * 3 * 60 / (1 + local.contract.polling_interval_seconds))]
      slow   = [20 * 3, ceil(3 * 3 * 60 / (local.contract.wait_time_seconds + local.contract.polling_interval_seconds))]
    }
    error_message = "An alarm of a queue does not count all workers, or not all polls."
  }
}

run "a_worker_of_five_queues_has_alarms_within_the_limit" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues  = [for name in ["a", "b", "c", "d", "e"] : { name = name, visibility_timeout_seconds = 1860 }]
      workers = [{ name = "all", queues = ["a", "b", "c", "d", "e"], min = 0 }]
    })
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.no_consumers), values(aws_cloudwatch_metric_alarm.to_zero)) :
      length(flatten(alarm.metric_query[*].metric)) == 10
    ]) && length(flatten(aws_cloudwatch_metric_alarm.from_zero["all"].metric_query[*].metric)) == 6
    error_message = "An alarm has more metrics than CloudWatch takes, or fewer than it could."
  }
}

run "a_fifo_queue_beside_a_standard_one" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues  = [{ name = "ordered", fifo = true, visibility_timeout_seconds = 960 }, { name = "quick", fifo = false, visibility_timeout_seconds = 960 }]
      workers = [{ name = "both", queues = ["ordered", "quick"] }]
    })
  }

  assert {
    condition = {
      for name, queue in aws_sqs_queue.main : name => [
        queue.name, aws_sqs_queue.dead_letters[name].name, queue.fifo_queue, aws_sqs_queue.dead_letters[name].fifo_queue,
      ]
      } == {
      ordered = ["${local.contract.service}-staging-ordered.fifo", "${local.contract.service}-staging-ordered-dlq.fifo", true, true]
      quick   = ["${local.contract.service}-staging-quick", "${local.contract.service}-staging-quick-dlq", false, false]
    }
    error_message = "A queue is of the kind of the others instead of its own."
  }

  assert {
    condition = (
      aws_sqs_queue.main["ordered"].deduplication_scope == "messageGroup" &&
      aws_sqs_queue.main["ordered"].fifo_throughput_limit == "perMessageGroupId"
    )
    error_message = "A FIFO queue beside a standard one lacks high throughput."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(data.aws_iam_policy_document.this["worker"].json).Statement : statement.Resource if statement.Sid == "Work"
      ])) == toset([
      for name in ["ordered.fifo", "quick"] : "arn:aws:sqs:${local.contract.region}:123456789012:${local.contract.service}-staging-${name}"
    ])
    error_message = "A worker may not receive messages from both kinds of queues."
  }
}

run "queues_that_exist_already_keep_their_names" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues = [
        { name = "celery", fifo = false, queue_name = "celery" },
        { name = "orders", fifo = true, queue_name = "Old_{environment}-orders.fifo" },
        { name = "mail", fifo = false, queue_name = "mail", dead_letter_queue_name = "{environment}_dead" },
      ]
      workers = []
    })
  }

  assert {
    condition = {
      for name, queue in aws_sqs_queue.main : name => [
        queue.name,
        aws_sqs_queue.dead_letters[name].name,
        element(split(":", jsondecode(queue.redrive_policy).deadLetterTargetArn), 5),
        element(split(":", jsondecode(aws_sqs_queue.dead_letters[name].redrive_allow_policy).sourceQueueArns[0]), 5),
        aws_cloudwatch_metric_alarm.queue["${name}-age"].dimensions.QueueName,
        aws_cloudwatch_metric_alarm.queue["${name}-dead-letters"].dimensions.QueueName,
        output.queues[name].queue,
        output.queues[name].dead_letters,
      ]
      } == {
      for name, names in {
        celery = ["celery", "celery-dlq"]
        orders = ["Old_staging-orders.fifo", "Old_staging-orders-dlq.fifo"]
        mail   = ["mail", "staging_dead"]
      } : name => concat(names, reverse(names), names, names)
    }
    error_message = "A queue is called otherwise somewhere."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(data.aws_iam_policy_document.this["operator"].json).Statement : statement.Resource if statement.Sid == "HandleDeadLetters"
      ])) == toset([
      for name in ["celery-dlq", "Old_staging-orders-dlq.fifo", "staging_dead"] : "arn:aws:sqs:${local.contract.region}:123456789012:${name}"
    ])
    error_message = "An operator may not handle messages of dead-letter queues with names of their own."
  }
}

run "a_queue_that_is_not_managed_is_used_and_watched_only" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues  = [{ name = "own", fifo = false }, { name = "given", fifo = false, queue_name = "given", managed = false }]
      workers = []
    })
  }

  assert {
    condition = (
      toset(keys(aws_sqs_queue.main)) == toset(["own"]) && toset(keys(aws_sqs_queue.dead_letters)) == toset(["own"]) &&
      length(data.aws_iam_policy_document.tls_only) == 2
    )
    error_message = "A queue that is not managed would be created or changed."
  }

  assert {
    condition = (
      output.queues["given"] == { queue = "given", dead_letters = "given-dlq" } &&
      toset(keys(aws_cloudwatch_metric_alarm.queue)) == toset(flatten([
        for queue in ["own", "given"] : [for kind in ["age", "backlog", "dead-letters", "empty-receives"] : "${queue}-${kind}"]
      ])) &&
      toset(keys(aws_cloudwatch_metric_alarm.no_consumers)) == toset(["own", "given"]) &&
      toset(keys(local.scaled_workers)) == toset(["own", "given"])
    )
    error_message = "A queue that is not managed is not listed, watched or scaled by."
  }

  assert {
    condition = {
      for policy in ["producer", "worker"] : policy => anytrue([
        for statement in jsondecode(data.aws_iam_policy_document.this[policy].json).Statement :
        contains(flatten([statement.Resource]), "arn:aws:sqs:${local.contract.region}:123456789012:given")
      ])
    } == { producer = true, worker = true }
    error_message = "A queue that is not managed cannot be used."
  }
}

run "queues_of_another_account_are_used_and_not_watched" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues = [
        { name = "own", fifo = false, visibility_timeout_seconds = 960 },
        { name = "theirs", fifo = false, visibility_timeout_seconds = 960, queue_name = "theirs", account = "999999999999", managed = false },
        { name = "elsewhere", fifo = false, queue_name = "elsewhere", account = "999999999999", managed = false },
        { name = "same", fifo = false, queue_name = "same", account = "123456789012", managed = false },
      ]
      workers = [
        { name = "mixed", queues = ["theirs", "own"], concurrency = 2, min = 0, max = 5 },
        { name = "alone", queues = ["elsewhere"], min = 2, max = 5 },
        { name = "same", queues = ["same"], min = 0, max = 5 },
      ]
    })
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(data.aws_iam_policy_document.this["worker"].json).Statement : statement.Resource if statement.Sid == "Work"
      ])) == toset([
      "arn:aws:sqs:${local.contract.region}:123456789012:${local.contract.service}-staging-own",
      "arn:aws:sqs:${local.contract.region}:999999999999:theirs",
      "arn:aws:sqs:${local.contract.region}:999999999999:elsewhere",
      "arn:aws:sqs:${local.contract.region}:123456789012:same",
    ])
    error_message = "A worker may not use a queue of another account, or uses this account's of the same name."
  }

  assert {
    condition     = toset(keys(aws_sqs_queue.main)) == toset(["own"]) && toset(keys(output.queues)) == toset(["own", "theirs", "elsewhere", "same"])
    error_message = "A queue of another account would be created here, or is not listed."
  }

  assert {
    condition = (
      toset([for alarm in aws_cloudwatch_metric_alarm.queue : alarm.dimensions.QueueName]) ==
      toset(["same", "same-dlq", "${local.contract.service}-staging-own", "${local.contract.service}-staging-own-dlq"]) &&
      toset(keys(aws_cloudwatch_metric_alarm.no_consumers)) == toset(["same"]) &&
      !strcontains(jsonencode(local.charts), "theirs") && !strcontains(jsonencode(local.charts), "elsewhere")
    )
    error_message = "A queue is watched of which CloudWatch has no metrics here."
  }

  assert {
    condition = (
      { for name, capacity in local.capacity : name => [capacity.min, capacity.max] } == { mixed = [1, 5], alone = [2, 2], same = [0, 5] } &&
      toset(keys(local.to_zero_workers)) == toset(["same"]) &&
      { for name, load in local.load : name => load.expression if name != "same" } == {
        mixed = "IF(running > 0, (visible0 / ${local.queues.own.backlog_per_worker}) / running)"
      } &&
      local.metrics["mixed"].visible0.dimensions.QueueName == output.queues["own"].queue
    )
    error_message = "The number of workers depends on messages that nobody here can count."
  }
}

run "queues_may_all_be_of_another_account" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues  = [{ name = "theirs", fifo = false, queue_name = "theirs", account = "999999999999", managed = false }]
      workers = []
    })
  }

  assert {
    condition = (
      length(aws_sqs_queue.main) + length(aws_cloudwatch_metric_alarm.queue) + length(local.scaled_workers) == 0 &&
      alltrue([for chart in local.charts : length(chart.metrics) > 0])
    )
    error_message = "Something is created for a queue that is another account's, or a chart is empty."
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
