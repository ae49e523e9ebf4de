# An IAM user has the worker's permissions. `keys rotate` creates its access key and stores it in
# the secret below: Terraform would store it in its state, which others can read.

locals {
  identity_services      = ["secretsmanager"]
  identity_read_policies = [data.aws_iam_policy_document.read_access_key.json]
  identity_secrets = [
    { arn = aws_secretsmanager_secret.access_key.arn, prefix = "", keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] },
  ]
}

resource "aws_iam_user" "worker" {
  name                 = "${local.global_name}-worker"
  permissions_boundary = local.boundary
  # Deletes the access key, which Terraform does not manage, with the user.
  force_destroy = true

  # A name that changes must not leave running workers, or producers elsewhere, without permissions.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_user_policy_attachment" "worker" {
  user       = aws_iam_user.worker.name
  policy_arn = aws_iam_policy.this["worker"].arn
}

resource "aws_secretsmanager_secret" "access_key" {
  name        = "${local.name}-worker"
  description = "Access key of the IAM user ${aws_iam_user.worker.name}, as JSON"
  kms_key_id  = local.own_key
  # The name cannot be used again during this time.
  recovery_window_in_days = var.protect_data ? 30 : 0
}

# Lets ECS, or the instance, read this secret and no other.
data "aws_iam_policy_document" "read_access_key" {
  statement {
    sid       = "ReadAccessKey"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.access_key.arn]
  }

  dynamic "statement" {
    for_each = local.own_key[*]
    content {
      sid       = "DecryptAccessKey"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role_policy" "read_access_key" {
  name   = "read-access-key"
  role   = local.secret_reader.name
  policy = data.aws_iam_policy_document.read_access_key.json
}

output "credentials" {
  description = "ARN of the IAM user with the worker's permissions."
  value       = aws_iam_user.worker.arn
}

output "access_key_secret_arn" {
  description = "ARN of the secret in which `keys rotate` stores the access key."
  value       = aws_secretsmanager_secret.access_key.arn
}
