# Neither role can read the secret, whose access key is for the workers.

locals {
  identity_look_actions = ["secretsmanager:DescribeSecret", "secretsmanager:GetResourcePolicy"]
  identity_change_statements = {
    Secret = {
      actions = [
        "secretsmanager:CreateSecret",
        "secretsmanager:DeleteSecret",
        "secretsmanager:TagResource",
        "secretsmanager:UntagResource",
        "secretsmanager:UpdateSecret",
      ]
      resources = ["${local.arn.secretsmanager}:secret:${local.name}-worker-*"]
    }
    User = {
      actions = [
        "iam:AttachUserPolicy",
        "iam:CreateUser",
        "iam:DeleteAccessKey",    # Deleted with their user,
        "iam:DeleteLoginProfile", # as is a password.
        "iam:DeleteUser",
        "iam:DetachUserPolicy",
        "iam:PutUserPermissionsBoundary", # Set, not remove.
        "iam:TagUser",
        "iam:UntagUser",
        "iam:UpdateUser",
      ]
      resources = ["${local.global_arn.iam}:user/${local.global_name}-worker"]
    }
  }
}
