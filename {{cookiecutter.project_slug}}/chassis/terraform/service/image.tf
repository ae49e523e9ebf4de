# No default: a plan without it would stop all workers. `make plan` reads the deployed tag from the
# state.
variable "image_tag" {
  description = "Tag of the image that workers run; empty until the first image is pushed, and then no workers are started."
  type        = string

  validation {
    # https://docs.docker.com/reference/cli/docker/image/tag/
    condition     = can(regex("^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", var.image_tag))
    error_message = "The image's tag must be up to 128 letters, digits, underscores, dots and hyphens, and must not begin with a dot or hyphen."
  }
}

output "image_tag" {
  description = "Tag of the image that was last deployed, which the next plan keeps."
  value       = var.image_tag
}

variable "image_repository" {
  description = "URL of an ECR repository that exists, such as one that accounts share; empty to create one. Its policy must allow this account to pull, and what owns it pushes images: `make push` does not."
  type        = string
  default     = ""

  validation {
    condition     = var.image_repository == "" || can(regex("^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com/[a-z0-9._/-]+$", var.image_repository))
    error_message = "The image repository must be the URL of an ECR repository without a tag, <account>.dkr.ecr.<region>.amazonaws.com/<name>."
  }
}

variable "architecture" {
  description = "CPU architecture of the workers; the image must be built for it."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "The architecture must be ARM64, which costs a fifth less, or X86_64."
  }
}

locals {
  own_repository = var.image_repository == "" ? { this = true } : {}
  registry       = "${local.account}.dkr.ecr.${local.region}.${local.dns_suffix}"
  repository     = var.image_repository == "" ? "${local.registry}/${local.name}" : var.image_repository
  # <account>.dkr.ecr.<region>.amazonaws.com/<name>
  repository_parts = split(".", split("/", local.repository)[0])
  repository_arn   = "arn:${local.partition}:ecr:${local.repository_parts[3]}:${local.repository_parts[0]}:repository/${trimprefix(local.repository, "${split("/", local.repository)[0]}/")}"

  # ECS checks the form of an image's name even if no worker is started. This tag
  # is pulled only if the first image fails and ECS rolls back to it, which fails as well.
  # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html
  image = "${local.repository}:${var.image_tag == "" ? "none" : var.image_tag}"
}

moved {
  from = aws_ecr_repository.service
  to   = aws_ecr_repository.service["this"]
}
moved {
  from = aws_ecr_lifecycle_policy.service
  to   = aws_ecr_lifecycle_policy.service["this"]
}

resource "aws_ecr_repository" "service" {
  for_each = local.own_repository

  name                 = local.name
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.protect_data

  image_scanning_configuration {
    scan_on_push = true
  }

  dynamic "encryption_configuration" {
    for_each = local.own_key[*]
    content {
      encryption_type = "KMS"
      kms_key         = encryption_configuration.value
    }
  }
}

resource "aws_ecr_lifecycle_policy" "service" {
  for_each = local.own_repository

  repository = aws_ecr_repository.service["this"].name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Keep images for rollbacks"
        selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = 30 }
        action       = { type = "expire" }
      },
      # A multi-architecture image has an untagged image per architecture, which is kept as long as
      # it is.
      # https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html
      {
        rulePriority = 2
        description  = "Expire untagged images"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 1 }
        action       = { type = "expire" }
      },
    ]
  })
}

# Permissions to start a worker; the worker itself does not need them.
data "aws_iam_policy_document" "run_image" {
  statement {
    sid       = "LogIn" # This action cannot be limited to one repository.
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
  statement {
    sid       = "PullImage"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [local.repository_arn]
  }
  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${local.log_group}:*"]
  }
}
