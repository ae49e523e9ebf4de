# The role that workers run under holds the worker's rights; nothing is secret.

locals {
  identity_services = []
  identity_secrets  = []
}

resource "aws_iam_role_policy_attachment" "worker" {
  role       = aws_iam_role.workers.name
  policy_arn = aws_iam_policy.this["worker"].arn
}

output "credentials" {
  description = "Who holds the worker's rights."
  value       = aws_iam_role.workers.arn
}
