mock_resource "aws_mq_broker" {
  defaults = {
    instances = [{
      console_url = "https://b-1.mq.eu-west-1.on.aws"
      endpoints   = ["amqps://b-1.mq.eu-west-1.on.aws:5671"]
      ip_address  = "10.0.0.4"
    }]
  }
}

mock_resource "aws_secretsmanager_secret_version" {
  defaults = { arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:mock" }
}
