# It has no default: a plan that forgot it would stop all workers. `make plan` knows what is deployed.
variable "image_tag" {
  description = "Image that workers run; empty until the first is pushed, when everything is made but workers."
  type        = string

  validation {
    # https://docs.docker.com/reference/cli/docker/image/tag/
    condition     = can(regex("^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$", var.image_tag))
    error_message = "The image's tag must be up to 128 letters, digits, underscores, dots and hyphens, and begin with no dot or hyphen."
  }
}

output "image_tag" {
  description = "Image that workers were given last, which the next plan keeps."
  value       = var.image_tag
}

variable "architecture" {
  description = "Processors that workers run on; the image must be built for them."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "The architecture must be ARM64, which costs a fifth less, or X86_64."
  }
}

variable "use_spot" {
  description = "Run workers above workers_min on spare capacity, which costs less and is taken back at two minutes' notice."
  type        = bool
  default     = false
}

locals {
  registry = "${local.account}.dkr.ecr.${local.region}.${local.dns_suffix}"
  image    = "${local.registry}/${local.name}:${var.image_tag}"

  log_group = "/${local.contract.service}/${var.environment}/workers"

  # Without an image there is nothing to run.
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
        description  = "Keep enough to go back"
        selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = 30 }
        action       = { type = "expire" }
      },
      # An image has a part for each kind of processor, without a tag; such parts stay as long as it does.
      # https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html
      {
        rulePriority = 2
        description  = "Drop what no image is made of"
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

# What starts a worker needs this; the worker itself does not.
data "aws_iam_policy_document" "run_image" {
  statement {
    sid       = "LogIn" # It cannot be limited to one repository.
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
