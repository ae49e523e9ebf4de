# The plan of the broker with the real provider; see plan.tftest.hcl.

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

run "broker" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"] }
  }

  assert {
    condition = (
      aws_mq_broker.this.broker_name == "${local.contract.service}-staging" &&
      aws_mq_broker.this.engine_type == "RabbitMQ" &&
      aws_mq_broker.this.engine_version == aws_mq_configuration.this.engine_version &&
      aws_mq_broker.this.deployment_mode == "SINGLE_INSTANCE" &&
      length(aws_mq_broker.this.subnet_ids) == 1 &&
      aws_mq_broker.this.auto_minor_version_upgrade &&
      aws_mq_broker.this.logs[0].general
    )
    error_message = "The broker is not one that AWS offers, or is not named after its environment."
  }

  assert {
    condition = aws_mq_configuration.this.data == join("", [
      "consumer_timeout = ", 1000 * max([for queue in local.effective_queues : queue.visibility_timeout_seconds]...), "\n"
    ])
    error_message = "The broker's consumer timeout is not the contract's longest visibility timeout."
  }

  assert {
    condition = (
      !aws_mq_broker.this.publicly_accessible &&
      join(" ", [for rule in aws_vpc_security_group_ingress_rule.broker : "${rule.from_port}-${rule.to_port}"]) == "5671-5671 443-443" &&
      alltrue([for rule in aws_vpc_security_group_ingress_rule.broker : rule.cidr_ipv4 == null]) &&
      aws_vpc_security_group_egress_rule.workers_to_broker.to_port == 5671 &&
      aws_vpc_security_group_egress_rule.workers_to_broker.cidr_ipv4 == null
    )
    error_message = "Others than the workers could reach the broker, or they could not."
  }

  # Policies, as sent to AWS.

  assert {
    condition = alltrue([
      for policy in ["producer", "worker", "operator"] : [
        for statement in jsondecode(data.aws_iam_policy_document.this[policy].json).Statement : [statement.Action, statement.Resource] if strcontains(jsonencode(statement.Action), "secretsmanager:")
      ] == [["secretsmanager:GetSecretValue", "arn:aws:secretsmanager:${local.contract.region}:123456789012:secret:${local.contract.service}-staging-broker-??????"]]
    ])
    error_message = "Somebody could not read the broker's password, or could read another secret."
  }

  assert {
    condition = alltrue(flatten([
      for policy in ["producer", "worker"] : [
        for statement in jsondecode(data.aws_iam_policy_document.this[policy].json).Statement : statement.Sid == "ReportQueues" && policy == "worker" ? [true] : [
          for action in flatten([statement.Action]) :
          contains(["secretsmanager", lookup({ s3 = "s3", dynamodb = "dynamodb" }, local.contract.results, "secretsmanager")], split(":", action)[0])
        ]
      ]
    ]))
    error_message = "A policy names services that the chosen result backend does not need."
  }

  assert {
    condition = [
      for statement in jsondecode(data.aws_iam_policy_document.this["worker"].json).Statement : [statement.Action, statement.Condition.StringEquals] if statement.Sid == "ReportQueues"
    ] == [["cloudwatch:PutMetricData", { "cloudwatch:namespace" = "${local.contract.service}-staging" }]]
    error_message = "A worker could not report its queue, or could write anybody's metrics."
  }

  assert {
    condition = {
      for statement in jsondecode(data.aws_iam_policy_document.this["operator"].json).Statement : statement.Sid => [statement.Action, statement.Resource] if strcontains(jsonencode(statement.Action), "mq:")
      } == {
      FindBroker   = ["mq:ListBrokers", "*"]
      LookAtBroker = ["mq:DescribeBroker", "arn:aws:mq:${local.contract.region}:123456789012:broker:${local.contract.service}-staging:b-*"]
    }
    error_message = "An operator can do more than describe the broker."
  }

  # Alarms

  assert {
    condition = alltrue([
      for queue in local.effective_queues :
      alltrue([
        for name, watched in { dead-letters = "${queue.name}-dlq", backlog = queue.name } :
        aws_cloudwatch_metric_alarm.queue["${queue.name}-${name}"].namespace == "${local.contract.service}-staging" &&
        aws_cloudwatch_metric_alarm.queue["${queue.name}-${name}"].metric_name == "MessagesWaiting" &&
        aws_cloudwatch_metric_alarm.queue["${queue.name}-${name}"].dimensions == tomap({ Queue = watched })
      ]) &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-dead-letters"].threshold == 0 &&
      aws_cloudwatch_metric_alarm.queue["${queue.name}-backlog"].threshold >= local.worker_of[queue.name].max
    ])
    error_message = "An alarm has the wrong queue, metric or threshold."
  }

  assert {
    condition = alltrue([
      for name, alarm in aws_cloudwatch_metric_alarm.no_consumers : alltrue(flatten([
        for query in alarm.metric_query : [
          for metric in query.metric : metric.metric_name == "Workers" && contains(local.workers[name].queues, metric.dimensions.Queue)
        ]
      ])) && alarm.treat_missing_data == "breaching"
    ])
    error_message = "The alarm for queues without consumers watches another worker's queue."
  }

  assert {
    condition = alltrue([
      for alarm in concat([aws_cloudwatch_metric_alarm.queue["broker-cpu"]], values(aws_cloudwatch_metric_alarm.broker)) :
      alarm.threshold == 80 && alarm.treat_missing_data == "notBreaching"
    ]) && join(" ", keys(aws_cloudwatch_metric_alarm.broker)) == "disk memory"
    error_message = "An alarm for the broker's nodes is missing."
  }
}

run "a_worker_of_two_queues_is_watched_as_one" {
  command = plan

  variables {
    contract = merge(jsondecode(file("../../../contract.json")), {
      queues = [
        { name = "urgent", acceptable_latency_seconds = 10, seconds_per_task = 5 },
        { name = "slow", acceptable_latency_seconds = 600, seconds_per_task = 60 },
        { name = "alone" },
      ]
      workers = [{ name = "both", queues = ["urgent", "slow"], concurrency = 2, min = 1, max = 3 }]
    })
  }

  assert {
    condition = (
      toset(keys(aws_cloudwatch_metric_alarm.no_consumers)) == toset(["both", "alone"]) &&
      { for query in aws_cloudwatch_metric_alarm.no_consumers["both"].metric_query : query.id => try(query.metric[0].dimensions.Queue, query.expression) } == {
        consumers0   = "urgent"
        consumers1   = "slow"
        no_consumers = "IF(FILL(consumers0, 0) == 0 OR FILL(consumers1, 0) == 0, 1, 0)"
      }
    )
    error_message = "A queue of the worker could be without consumers and raise no alarm."
  }

  assert {
    condition = { for queue in ["urgent", "slow"] : queue => aws_cloudwatch_metric_alarm.queue["${queue}-backlog"].threshold } == {
      urgent = 4 * 3
      slow   = 20 * 3
    }
    error_message = "The backlog's alarm of a queue does not count all workers."
  }
}

run "broker_of_three" {
  command = plan

  variables {
    network     = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"] }
    broker      = { deployment_mode = "CLUSTER_MULTI_AZ", instance_type = "mq.m7g.large", engine_version = "4.3" }
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/1"
  }

  assert {
    condition     = length(aws_mq_broker.this.subnet_ids) == 2 && aws_mq_broker.this.host_instance_type == "mq.m7g.large" && aws_mq_configuration.this.engine_version == "4.3"
    error_message = "The broker is not what was asked for."
  }

  assert {
    condition     = aws_secretsmanager_secret.broker.kms_key_id == var.kms_key_arn
    error_message = "The broker's password is not encrypted with the owner's key."
  }
}

run "network_without_internet_access_reaches_the_password" {
  command = plan

  variables {
    network = { internet_access = "none" }
  }

  assert {
    condition     = contains(keys(aws_vpc_endpoint.interface), "secretsmanager")
    error_message = "Nothing could read the broker's password in the network without a way to the internet."
  }
}

run "a_version_that_aws_does_not_make_is_refused" {
  command = plan

  variables {
    broker = { engine_version = "3.13" }
  }

  expect_failures = [var.broker]
}

run "a_machine_that_aws_does_not_make_is_refused" {
  command = plan

  variables {
    broker = { instance_type = "mq.t3.micro" }
  }

  expect_failures = [var.broker]
}

run "a_mode_that_aws_does_not_make_is_refused" {
  command = plan

  variables {
    broker = { deployment_mode = "ACTIVE_STANDBY_MULTI_AZ" }
  }

  expect_failures = [var.broker]
}

run "what_the_broker_does_not_take_is_refused" {
  command = plan

  variables {
    broker = { instance_typ = "mq.m7g.large" }
  }

  expect_failures = [var.broker]
}
