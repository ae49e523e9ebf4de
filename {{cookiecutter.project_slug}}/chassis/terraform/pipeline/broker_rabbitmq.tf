# Neither role reads the password. For that, the provider must not either: it asks for the secret's versions
# only, from https://github.com/hashicorp/terraform-provider-aws/pull/44876 on.

locals {
  mq_arn = "arn:${local.partition}:mq:${local.region}:${local.account}"

  broker_look_actions = [
    "mq:DescribeBroker",
    "mq:DescribeConfiguration",
    "mq:DescribeConfigurationRevision",
    "secretsmanager:DescribeSecret",
    "secretsmanager:GetResourcePolicy",
    "secretsmanager:ListSecretVersionIds",
  ]
  broker_change_statements = {
    Broker = { actions = ["mq:*"], resources = ["${local.mq_arn}:broker:${local.name}:*"] }
    # These cannot be limited to names, as what is new has none yet, and configurations have ids only.
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonmq.html
    MakeBroker = { actions = ["mq:CreateBroker", "mq:CreateConfiguration"], resources = ["*"] }
    ConfigureBroker = {
      actions   = ["mq:CreateTags", "mq:DeleteConfiguration", "mq:DeleteTags", "mq:UpdateConfiguration"]
      resources = ["${local.mq_arn}:configuration:*"]
    }
    # Whoever makes a broker must be allowed what Amazon MQ does to connect it with the network.
    # https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/security-api-authentication-authorization.html
    ConnectBroker = {
      actions = [
        "ec2:CreateNetworkInterface",
        "ec2:CreateNetworkInterfacePermission",
        "ec2:DeleteNetworkInterface",
        "ec2:DeleteNetworkInterfacePermission",
        "ec2:DetachNetworkInterface",
      ]
      resources = ["${local.arn.ec2}:*"]
    }
    BrokerSecret = {
      actions = [
        "secretsmanager:CreateSecret",
        "secretsmanager:DeleteSecret",
        "secretsmanager:PutSecretValue",
        "secretsmanager:TagResource",
        "secretsmanager:UntagResource",
        "secretsmanager:UpdateSecret",
        "secretsmanager:UpdateSecretVersionStage",
      ]
      resources = ["${local.arn.secretsmanager}:secret:${local.name}-broker-*"]
    }
  }
  broker_first_uses = ["mq.amazonaws.com"]
}
