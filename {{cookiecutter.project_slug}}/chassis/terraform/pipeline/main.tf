# The roles that GitHub Actions assumes in one environment. Run `make pipeline` once, yourself and
# not in a pipeline. There are no access keys: a job gets temporary credentials with its OIDC
# token.
# https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-aws

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }

  # The environment's bucket, with a key of its own, to which the roles below have no access.
  backend "s3" {}
}

variable "environment" {
  description = "Name of the environment, such as staging; the GitHub environment has the same name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,10}$", var.environment))
    error_message = "The environment must be 1 to 11 lower-case letters and digits, beginning with a letter."
  }
}

variable "github_repository" {
  description = "The repository as in the subject claim of GitHub's tokens: with ids, owner@1/name@2, if it was created after mid-July 2026."
  type        = string

  validation {
    # A wildcard would allow other repositories to assume the roles.
    # https://github.blog/changelog/2026-04-23-immutable-subject-claims-for-github-actions-oidc-tokens/
    condition     = can(regex("^[A-Za-z0-9-]+(@[0-9]+)?/[A-Za-z0-9._-]+(@[0-9]+)?$", var.github_repository))
    error_message = "The repository must be owner/name or owner@id/name@id, see the README for how to look it up."
  }
}

variable "github_oidc_url" {
  description = "URL of the OIDC provider of GitHub Actions: on GitHub Enterprise Server, https://<host>/_services/token."
  type        = string
  default     = "https://token.actions.githubusercontent.com"

  validation {
    # https://docs.github.com/en/enterprise-server@3.21/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-aws
    condition     = can(regex("^https://[A-Za-z0-9.-]+(/[A-Za-z0-9._/-]*[A-Za-z0-9._-])?$", var.github_oidc_url))
    error_message = "The URL of the OIDC provider must begin with https://, and not end with a slash."
  }
}

variable "permissions_boundary_arn" {
  description = "ARN of the permissions boundary of the roles; empty for none."
  type        = string
  default     = ""
}

locals {
  contract = jsondecode(file("${path.module}/../../../contract.json"))

  name      = "${local.contract.service}-${var.environment}"
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = local.contract.region

  # Prefixes of ARNs, and of ARNs without a region.
  arn = {
    for service in ["application-autoscaling", "autoscaling", "cloudwatch", "dynamodb", "ec2", "ecr", "ecs", "elasticache", "kms", "logs", "secretsmanager", "sns"] :
    service => "arn:${local.partition}:${service}:${local.region}:${local.account}"
  }
  global_arn = {
    for service in ["budgets", "cloudwatch", "iam"] : service => "arn:${local.partition}:${service}::${local.account}"
  }
  # Names as in terraform/service/locals.tf.
  global_name   = "${local.name}-${local.region}"
  bucket_suffix = substr(sha256("${local.account} ${local.region}"), 0, 12)
  bucket_arn    = "arn:${local.partition}:s3:::${local.name}"
  # `make bootstrap` has written the name of its bucket there, which chassis 1 made of other parts.
  backend      = "${path.module}/../../../terraform/environments/${var.environment}.s3.tfbackend"
  state_bucket = try(regex("(?m)^bucket *= *\"([^\"]+)\"", file(local.backend))[0], "${local.name}-state-${local.bucket_suffix}")
  state_arn    = "arn:${local.partition}:s3:::${local.state_bucket}"

  oidc_issuer = trimprefix(var.github_oidc_url, "https://")

  # Which jobs can assume which role: jobs of pull requests plan, jobs of the environment deploy.
  # Who can run a job of the environment, and whether it needs approval, is configured in GitHub.
  # https://docs.github.com/en/actions/reference/security/oidc#example-subject-claims
  subjects = {
    plan   = "repo:${var.github_repository}:pull_request"
    deploy = "repo:${var.github_repository}:environment:${var.environment}"
  }
  policies = {
    plan   = data.aws_iam_policy_document.plan.json
    deploy = data.aws_iam_policy_document.deploy.json
  }
}

provider "aws" {
  region = local.region

  default_tags {
    tags = {
      Service     = local.contract.service
      Environment = var.environment
      ManagedBy   = "terraform"
    }
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

# There is one per account, shared with other services, so it is not managed here.
data "aws_iam_openid_connect_provider" "github" {
  url = var.github_oidc_url
}

data "aws_iam_policy_document" "trust" {
  for_each = local.subjects

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [data.aws_iam_openid_connect_provider.github.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.oidc_issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.oidc_issuer}:sub"
      values   = [each.value]
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.subjects

  # The path excludes the role from those that it can change itself, `${local.global_name}-*`.
  name                 = "${local.global_name}-${each.key}"
  path                 = "/pipeline/"
  description          = "Pipelines of ${var.github_repository}: ${each.key} ${var.environment}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  permissions_boundary = var.permissions_boundary_arn == "" ? null : var.permissions_boundary_arn
  max_session_duration = 7200
}

resource "aws_iam_role_policy" "this" {
  for_each = local.policies

  name   = each.key
  role   = aws_iam_role.this[each.key].name
  policy = each.value
}

output "role_arns" {
  description = "ARNs of the roles, for the repository's variables AWS_PLAN_ROLE and AWS_DEPLOY_ROLE."
  value       = { for name, role in aws_iam_role.this : name => role.arn }
}
