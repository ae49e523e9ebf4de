# Permissions of the roles: the plan role reads, the deploy role also changes. The options'
# permissions are in files of their own. For the owner's resources, terraform/pipeline/plan.json
# adds permissions to both roles and deploy.json to the deploy role. Both are IAM policies, in
# which ${name}, ${region}, ${account} and ${partition} are replaced.

locals {
  # Configuration only, no content: no messages, results, logs, secrets or objects. Most of these
  # actions cannot be limited to names.
  look_actions = concat(local.broker_look_actions, local.compute_look_actions, local.identity_look_actions, local.results_look_actions, [
    "budgets:ListTagsForResource",
    "budgets:ViewBudget",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:GetDashboard",
    "cloudwatch:ListTagsForResource",
    "ec2:Describe*",
    "ecr:DescribeRepositories",
    "ecr:GetLifecyclePolicy",
    "ecr:ListTagsForResource",
    "iam:Get*",
    "iam:List*",
    "kms:DescribeKey",
    "logs:DescribeLogGroups",
    "logs:DescribeMetricFilters",
    "logs:ListTagsForResource",
    "s3:GetAccelerateConfiguration",
    "s3:GetBucket*",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
    "sns:GetSubscriptionAttributes",
    "sns:GetTopicAttributes",
    "sns:ListTagsForResource",
  ])

  # The deploy role can give workers any permission, and so has every permission in effect. Review
  # changes of terraform/ like changes of permissions, and require approval for production in
  # GitHub.
  change_statements = merge(local.broker_change_statements, local.compute_change_statements, local.identity_change_statements, local.results_change_statements, {
    Alarms = {
      actions   = ["cloudwatch:*"]
      resources = ["${local.arn.cloudwatch}:alarm:${local.name}-*", "${local.global_arn.cloudwatch}:dashboard/${local.global_name}"]
    }
    Topic  = { actions = ["sns:*"], resources = ["${local.arn.sns}:${local.name}-alarms", "${local.arn.sns}:${local.name}-alarms:*"] }
    Logs   = { actions = ["logs:*"], resources = ["${local.arn.logs}:log-group:/${local.contract.service}/${var.environment}/*"] }
    Images = { actions = ["ecr:*"], resources = ["${local.arn.ecr}:repository/${local.name}"] }
    # Production runs the image that was tested in staging.
    ImagesOfStaging = {
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:GetDownloadUrlForLayer"]
      resources = ["${local.arn.ecr}:repository/${local.contract.service}-staging"]
    }
    LogIn = { actions = ["ecr:GetAuthorizationToken"], resources = ["*"] } # This action cannot be limited to one repository.
    Budget = {
      actions   = ["budgets:ModifyBudget", "budgets:TagResource", "budgets:UntagResource"]
      resources = ["${local.global_arn.budgets}:budget/${local.global_name}"]
    }
    Roles = {
      actions = [
        "iam:AttachRolePolicy",
        "iam:CreatePolicy",
        "iam:CreatePolicyVersion",
        "iam:CreateRole",
        "iam:DeletePolicy",
        "iam:DeletePolicyVersion",
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
        "iam:PutRolePermissionsBoundary", # Set, not remove.
        "iam:PutRolePolicy",
        "iam:TagPolicy",
        "iam:TagRole",
        "iam:UntagPolicy",
        "iam:UntagRole",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRole",
        "iam:UpdateRoleDescription",
      ]
      resources = ["${local.global_arn.iam}:role/${local.global_name}-*", "${local.global_arn.iam}:policy/${local.global_name}-*"]
    }
    # Limited by tags, as ids are unknown: the provider tags what it creates, and only what has the
    # tags of this environment can be changed or deleted.
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
    ChangeNetwork = {
      actions = [
        "ec2:*InternetGateway",
        "ec2:*NatGateway*",
        "ec2:*Route",
        "ec2:*RouteTable*",
        "ec2:*SecurityGroup*",
        "ec2:*Subnet*",
        "ec2:*Tags",
        "ec2:*Vpc*",
        "ec2:DisassociateAddress",
        "ec2:ReleaseAddress",
      ]
      resources  = ["${local.arn.ec2}:*"]
      conditions = local.own_tags
    }
    # New resources have no tags yet, but are in networks that may belong to somebody else.
    MakeNetwork = {
      actions = [
        "ec2:AllocateAddress",
        "ec2:CreateInternetGateway",
        "ec2:CreateNatGateway",
        "ec2:CreateRouteTable",
        "ec2:CreateSecurityGroup",
        "ec2:CreateSubnet",
        "ec2:CreateVpc",
        "ec2:CreateVpcEndpoint",
      ]
      resources = ["${local.arn.ec2}:*"]
    }
    # Parts of such resources, which have other tags or none.
    NetworkParts = {
      actions = ["ec2:AuthorizeSecurityGroup*", "ec2:DisassociateAddress"]
      resources = [
        "${local.arn.ec2}:network-interface/*",
        "${local.arn.ec2}:security-group-rule/*",
      ]
    }
    # Tags set while a resource is created. Setting them later would make it this environment's.
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
    TagNew = {
      actions    = ["ec2:CreateTags"]
      resources  = ["${local.arn.ec2}:*"]
      conditions = [{ test = "Null", variable = "ec2:CreateAction", values = ["false"] }]
    }
    # AWS creates the default security group of a VPC without tags.
    TagDefaultGroup = {
      actions   = ["ec2:CreateTags"]
      resources = ["${local.arn.ec2}:security-group/*"]
      conditions = concat(
        [for tag in keys(local.tags) : { test = "Null", variable = "aws:ResourceTag/${tag}", values = ["true"] }],
        [for tag, value in local.tags : { test = "StringEquals", variable = "aws:RequestTag/${tag}", values = [value] }],
      )
    }
    # A VPC endpoint with private DNS associates a hosted zone.
    EndpointNames = {
      actions   = ["route53:AssociateVPCWithHostedZone"]
      resources = ["arn:${local.partition}:route53:::hostedzone/*"]
    }
    }, length(local.shared_groups) == 0 ? {} : {
    # The security group of another network's endpoints, which is to accept the workers.
    SharedEndpoints = {
      actions   = ["ec2:*SecurityGroupIngress", "ec2:ModifySecurityGroupRules", "ec2:UpdateSecurityGroupRuleDescriptionsIngress"]
      resources = [for id in local.shared_groups : "${local.arn.ec2}:security-group/${id}"]
    }
  })
}

locals {
  tags     = { Service = local.contract.service, Environment = var.environment }
  own_tags = [for tag, value in local.tags : { test = "StringEquals", variable = "aws:ResourceTag/${tag}", values = [value] }]

  # `endpoints_security_group_id` of the network, where it is an id; one of the owner's resources has
  # the tags above.
  root = "${path.module}/../../../terraform"
  shared_groups = distinct(flatten([
    for path in ["${local.root}/main.tf", "${local.root}/environments/${var.environment}.tfvars"] :
    regexall("endpoints_security_group_id\\s*=\\s*\"(sg-[0-9a-f]+)\"", try(file(path), ""))
  ]))
}

locals {
  own_policies = {
    for role in ["plan", "deploy"] : role => [
      for path in ["${path.module}/../../../terraform/pipeline/${role}.json"] :
      templatefile(path, { name = local.name, region = local.region, account = local.account, partition = local.partition }) if fileexists(path)
    ]
  }
}

data "aws_iam_policy_document" "look" {
  source_policy_documents = local.own_policies.plan

  statement {
    sid       = "Look"
    actions   = local.look_actions
    resources = ["*"]
  }

  # The provider's HeadBucket request needs this permission.
  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html
  statement {
    sid       = "FindBuckets"
    actions   = ["s3:ListBucket"]
    resources = ["${local.bucket_arn}-*"]
  }
}

data "aws_iam_policy_document" "plan" {
  source_policy_documents = [data.aws_iam_policy_document.look.json]

  # Without the lock: a plan for a pull request does not lock the state, and changes nothing.
  statement {
    sid       = "ReadState"
    actions   = ["s3:GetObject"]
    resources = ["${local.state_arn}/${local.contract.service}.tfstate"]
  }
}

data "aws_iam_policy_document" "deploy" {
  source_policy_documents = concat([data.aws_iam_policy_document.look.json], local.own_policies.deploy)

  statement {
    sid       = "KeepState"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = ["${local.state_arn}/${local.contract.service}.tfstate"]
  }

  statement {
    sid       = "LockState"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    resources = ["${local.state_arn}/${local.contract.service}.tfstate.tflock"]
  }

  dynamic "statement" {
    for_each = local.change_statements
    content {
      sid       = statement.key
      actions   = statement.value.actions
      resources = statement.value.resources

      dynamic "condition" {
        for_each = try(statement.value.conditions, [])
        content {
          test     = condition.value.test
          variable = condition.value.variable
          values   = condition.value.values
        }
      }
    }
  }

  statement {
    sid       = "LendRoles"
    actions   = ["iam:PassRole"]
    resources = ["${local.global_arn.iam}:role/${local.global_name}-*"]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = concat(local.role_users, local.broker_role_users)
    }
  }

  # Service-linked roles, which AWS creates when an account first uses a service.
  statement {
    sid       = "FirstUse"
    actions   = ["iam:CreateServiceLinkedRole"]
    resources = ["${local.global_arn.iam}:role/aws-service-role/*"]

    condition {
      test     = "StringEquals"
      variable = "iam:AWSServiceName"
      values   = concat(local.broker_first_uses, local.compute_first_uses, local.results_first_uses)
    }
  }

  # The owner's KMS key, whose policy must allow this role; only through AWS services.
  statement {
    sid       = "OwnKey"
    actions   = ["kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKey"]
    resources = ["${local.arn.kms}:key/*"]

    condition {
      test     = "StringLike"
      variable = "kms:ViaService"
      values   = ["*.${local.region}.${data.aws_partition.current.dns_suffix}"]
    }
  }
}
