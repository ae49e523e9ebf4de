locals {
  results_look_actions = ["elasticache:Describe*", "elasticache:ListTagsForResource"]
  results_change_statements = {
    Results = {
      actions = ["elasticache:*"]
      resources = [
        "${local.arn.elasticache}:cluster:${local.name}-*",
        "${local.arn.elasticache}:replicationgroup:${local.name}",
        "${local.arn.elasticache}:subnetgroup:${local.name}-results",
        "${local.arn.elasticache}:parametergroup:${local.name}-results",
        # Used by chassis 1, which an update changes.
        "${local.arn.elasticache}:parametergroup:default.*",
      ]
    }
  }
  results_first_uses = ["elasticache.amazonaws.com"]
}
