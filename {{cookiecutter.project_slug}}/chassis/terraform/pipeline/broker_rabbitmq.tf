# Neither role can read the password. The provider does not read it either: it lists the secret's
# versions only, since
# https://github.com/hashicorp/terraform-provider-aws/pull/44876

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
    # These actions cannot be limited to names: new brokers have none yet, and configurations have
    # ids only.
    # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonmq.html
    MakeBroker = { actions = ["mq:CreateBroker", "mq:CreateConfiguration"], resources = ["*"] }
    ConfigureBroker = {
      actions   = ["mq:CreateTags", "mq:DeleteConfiguration", "mq:DeleteTags", "mq:UpdateConfiguration"]
      resources = ["${local.mq_arn}:configuration:*"]
    }
    # Creating a broker needs the permissions with which Amazon MQ connects it to the VPC.
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
  broker_role_users = []
}
