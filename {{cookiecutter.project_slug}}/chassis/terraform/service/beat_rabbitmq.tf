# Celery's beat, which sends the tasks of the contract's schedules. Created only if it has some.
#
# There is one: the old one is stopped before a new one starts, and nothing scales it. What is due
# in between is not sent; see docs/schedules.md.

locals {
  # Cannot clash with a worker: names of workers are lower-case.
  beat = length(try(local.contract.schedules, [])) > 0 ? { Beat = { min = 1, max = 1 } } : {}
}

# The permissions of a producer.
resource "aws_iam_role" "beat" {
  for_each = local.beat

  name                 = "${local.global_name}-beat"
  assume_role_policy   = local.trust_policy
  permissions_boundary = local.boundary

  # A name that changes must not leave the running beat without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role_policy_attachment" "beat" {
  for_each = local.beat

  role       = aws_iam_role.beat[each.key].name
  policy_arn = aws_iam_policy.this["producer"].arn
}

resource "aws_cloudwatch_metric_alarm" "beat_gone" {
  for_each = var.image_tag == "" ? {} : local.beat

  alarm_name          = "${local.name}-${each.key}-gone"
  alarm_description   = "The beat is not running: no schedule is fired. ${var.runbook_url}#beat-gone"
  namespace           = local.running_workers_metrics[each.key].namespace
  metric_name         = local.running_workers_metrics[each.key].name
  dimensions          = local.running_workers_metrics[each.key].dimensions
  statistic           = "Maximum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 10 # A deployment replaces it within some minutes.
  # Without a task, ECS may publish nothing.
  treat_missing_data = "breaching"
  alarm_actions      = local.alarm_actions
  ok_actions         = local.alarm_actions
}

# Tasks that the beat did not send, and on EC2 also a beat that ended: its instance stays in service
# while it starts again and again. What the patterns can contain:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
resource "aws_cloudwatch_log_metric_filter" "beat_failures" {
  for_each = length(local.beat) == 0 ? {} : {
    not-sent = "{ ($.logger = \"celery_aws.beat\" || $.logger = \"celery.beat\") && ($.level = \"ERROR\" || $.level = \"CRITICAL\") }"
    ended    = "\"Beat failed:\"" # From report.sh.
  }

  name           = "beat-${each.key}"
  log_group_name = aws_cloudwatch_log_group.workers.name
  pattern        = each.value

  metric_transformation {
    name      = "${local.name}-BeatFailures"
    namespace = local.contract.service
    value     = "1"
    unit      = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "beat_failures" {
  for_each = local.beat

  alarm_name          = "${local.name}-${each.key}-failures"
  alarm_description   = "The beat failed, or did not send a task that was due. ${var.runbook_url}#beat-failures"
  namespace           = local.contract.service
  metric_name         = "${local.name}-BeatFailures"
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
}
