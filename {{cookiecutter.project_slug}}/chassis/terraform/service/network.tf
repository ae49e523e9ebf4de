variable "vpc_id" {
  description = "ID of an existing VPC; a VPC is created if this is empty."
  type        = string
  default     = ""
}

variable "subnet_ids" {
  description = "IDs of subnets of that VPC, with access to AWS through a NAT gateway or VPC endpoints."
  type        = list(string)
  default     = []

  validation {
    condition     = (var.vpc_id == "") == (length(var.subnet_ids) == 0)
    error_message = "Set both vpc_id and subnet_ids, or neither."
  }
}

variable "vpc_cidr" {
  description = "IPv4 CIDR block of the VPC that is created."
  type        = string
  default     = "10.0.0.0/22"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 2, 3)) && try(tonumber(split("/", var.vpc_cidr)[1]) <= 26, false)
    error_message = "The VPC's CIDR block must have the form 10.0.0.0/22, with a prefix length of 26 or less."
  }
}

locals {
  own_vpc    = var.vpc_id == "" ? { this = true } : {}
  vpc_id     = var.vpc_id == "" ? aws_vpc.this["this"].id : var.vpc_id
  subnet_ids = var.vpc_id == "" ? values(aws_subnet.private)[*].id : var.subnet_ids

  # Workers call nothing else, so the VPC that is created has no internet access.
  interface_services = var.vpc_id == "" ? toset(concat(local.broker_interface_services, local.compute_services, local.identity_services, local.task_interface_services)) : []
  gateway_services   = var.vpc_id == "" ? toset(concat(["s3"], local.results_gateway_services)) : []
}

data "aws_availability_zones" "available" {
  for_each = local.own_vpc
  state    = "available"

  # Local Zones lack some of the endpoints.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

resource "aws_vpc" "this" {
  for_each = local.own_vpc

  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  tags                 = { Name = local.name }
}

# The default security group is not used, so it allows nothing.
resource "aws_default_security_group" "this" {
  for_each = local.own_vpc
  vpc_id   = aws_vpc.this["this"].id
}

resource "aws_subnet" "private" {
  for_each = var.vpc_id == "" ? { a = 0, b = 1 } : {}

  vpc_id            = aws_vpc.this["this"].id
  availability_zone = data.aws_availability_zones.available["this"].names[each.value]
  cidr_block        = cidrsubnet(var.vpc_cidr, 1, each.value)
  tags              = { Name = "${local.name}-${each.key}" }
}

resource "aws_route_table" "private" {
  for_each = local.own_vpc

  vpc_id = aws_vpc.this["this"].id
  tags   = { Name = local.name }
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private["this"].id
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_services

  vpc_id              = local.vpc_id
  service_name        = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = local.subnet_ids
  security_group_ids  = [aws_security_group.endpoints["this"].id]
  private_dns_enabled = true
  tags                = { Name = "${local.name}-${each.key}" }
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = local.gateway_services

  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.private["this"].id]
  tags              = { Name = "${local.name}-${each.key}" }
}

resource "aws_security_group" "endpoints" {
  for_each = local.own_vpc

  name        = "${local.name}-endpoints"
  description = "VPC endpoints: HTTPS from workers"
  vpc_id      = local.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = local.own_vpc

  security_group_id            = aws_security_group.endpoints["this"].id
  description                  = "Workers to VPC endpoints"
  referenced_security_group_id = aws_security_group.workers.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_security_group" "workers" {
  name        = "${local.name}-workers"
  description = "Workers: nothing in, HTTPS out"
  vpc_id      = local.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.workers.id
  description       = "AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
