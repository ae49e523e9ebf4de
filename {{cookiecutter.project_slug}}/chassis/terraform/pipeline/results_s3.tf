locals {
  results_look_actions = []
  results_change_statements = {
    Results = {
      actions   = ["s3:*"]
      resources = ["${local.bucket_arn}-results-${local.bucket_suffix}", "${local.bucket_arn}-results-${local.bucket_suffix}/*"]
    }
  }
  results_first_uses = []
}
