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

variable "architecture" {
  description = "CPU architecture of the workers; the image must be built for it."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "The architecture must be ARM64, which costs a fifth less, or X86_64."
  }
}

variable "use_spot" {
  description = "Run workers above workers_min on Spot capacity, which costs less and is reclaimed at two minutes' notice."
  type        = bool
  default     = false
}

locals {
  registry = "${local.account}.dkr.ecr.${local.region}.${local.dns_suffix}"
  image    = "${local.registry}/${local.name}:${var.image_tag}"

  log_group = "/${local.contract.service}/${var.environment}/workers"

  # Without an image no worker can start.
  workers = {
    for name, queue in local.queues : name => {
      min = var.image_tag == "" ? 0 : queue.workers_min
      max = var.image_tag == "" ? 0 : queue.workers_max
    }
  }
}

resource "aws_ecr_repository" "service" {
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
  repository = aws_ecr_repository.service.name
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

resource "aws_cloudwatch_log_group" "workers" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
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
    resources = ["arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${local.name}"]
  }
  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${local.log_group}:*"]
  }
}
