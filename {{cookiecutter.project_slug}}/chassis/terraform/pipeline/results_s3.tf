locals {
  results_look_actions = []
  results_change_statements = {
    Results = {
      actions   = ["s3:*"]
      resources = ["${local.bucket_arn}-results-${local.account}", "${local.bucket_arn}-results-${local.account}/*"]
    }
  }
  results_first_uses = []
}
