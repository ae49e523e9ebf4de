# The role of the workers has the worker's permissions; there are no credentials to store.

locals {
  identity_services      = []
  identity_secrets       = []
  identity_read_policies = []
}

resource "aws_iam_role_policy_attachment" "worker" {
  role       = aws_iam_role.workers.name
  policy_arn = aws_iam_policy.this["worker"].arn
}

output "credentials" {
  description = "ARN of the IAM role with the worker's permissions."
  value       = aws_iam_role.workers.arn
}
