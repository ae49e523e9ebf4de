locals {
  results_look_actions = ["elasticache:Describe*", "elasticache:ListTagsForResource"]
  results_change_statements = {
    Results = {
      actions = ["elasticache:*"]
      resources = [
        "${local.arn.elasticache}:cluster:${local.name}-*",
        "${local.arn.elasticache}:replicationgroup:${local.name}",
        "${local.arn.elasticache}:subnetgroup:${local.name}-results",
        # Used, not changed: AWS manages it.
        "${local.arn.elasticache}:parametergroup:default.*",
      ]
    }
  }
  results_first_uses = ["elasticache.amazonaws.com"]
}
