variable "network" {
  description = <<-EOT
    The network of the workers; every attribute is optional.
    internet_access: how the created VPC reaches the internet. nat (default): private subnets and one
    NAT gateway. nat_per_zone: one NAT gateway per Availability Zone, so that no zone depends on
    another. public: public subnets and public IP addresses, which accept no connections. none: no
    internet access; VPC endpoints for the AWS services that the service needs.
    cidr: IPv4 CIDR block of the created VPC (default 10.0.0.0/22), which workers share. NAT gateways
    are in 100.64.0.0/26, so the way to the internet can be changed without new subnets for workers.
    availability_zones: names of 1 to 3 Availability Zones (default: the first two of the region).
    Another number replaces subnets, which fails while anything is in them.
    interface_endpoints: further AWS services to create VPC endpoints for, such as sns.
    vpc_id, subnet_ids: an existing VPC and subnets in it, instead of a created one. They need a way
    to AWS. internet_access is then public if the subnets are public, or left out.
    endpoints_security_group_id: security group of that VPC's endpoints, which is to accept the
    workers; output of the service that created them.
    egress: what workers connect to besides HTTPS, by name: port, and cidr or security_group_id.
  EOT
  type        = any
  default     = {}

  validation {
    condition = length(setsubtract(keys(var.network), [
      "internet_access", "cidr", "availability_zones", "interface_endpoints", "vpc_id", "subnet_ids", "endpoints_security_group_id", "egress",
    ])) == 0
    error_message = "network takes internet_access, cidr, availability_zones, interface_endpoints, vpc_id, subnet_ids, endpoints_security_group_id and egress."
  }
  validation {
    condition     = contains(["nat", "nat_per_zone", "public", "none"], try(var.network.internet_access, "nat"))
    error_message = "The network's internet_access must be nat, nat_per_zone, public or none."
  }
  validation {
    condition     = contains(keys(var.network), "vpc_id") == contains(keys(var.network), "subnet_ids") && try(var.network.vpc_id != "" && length(var.network.subnet_ids) > 0, !contains(keys(var.network), "vpc_id"))
    error_message = "Set both vpc_id and subnet_ids of the network, or neither."
  }
  validation {
    condition = !contains(keys(var.network), "vpc_id") ? !contains(keys(var.network), "endpoints_security_group_id") : (
      contains(["", "public"], try(var.network.internet_access, "")) &&
      length(setintersection(keys(var.network), ["cidr", "availability_zones", "interface_endpoints"])) == 0
    )
    error_message = "With vpc_id, the network takes no cidr, availability_zones or interface_endpoints, and no internet_access but public; without it, no endpoints_security_group_id."
  }
  validation {
    # The smallest subnet of a VPC has a prefix length of 28.
    # https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
    condition     = can(cidrhost(try(var.network.cidr, "10.0.0.0/22"), 0)) && try(tonumber(split("/", var.network.cidr)[1]) >= 16 && tonumber(split("/", var.network.cidr)[1]) <= 26, !can(var.network.cidr))
    error_message = "The network's cidr must have the form 10.0.0.0/22, with a prefix length of 16 to 26."
  }
  validation {
    condition     = !can(var.network.availability_zones) || try(contains([1, 2, 3], length(distinct(var.network.availability_zones))), false)
    error_message = "The network's availability_zones must be the names of 1 to 3 zones, such as eu-west-1a."
  }
  validation {
    condition = alltrue([
      for name, to in try(var.network.egress, {}) :
      length(setsubtract(keys(to), ["port", "cidr", "security_group_id"])) == 0 && can(to.port + 0) && can(to.cidr) != can(to.security_group_id)
    ])
    error_message = "Each egress of the network needs a port, and either a cidr or a security_group_id."
  }
}

locals {
  network = merge({
    internet_access             = "nat"
    cidr                        = "10.0.0.0/22"
    availability_zones          = []
    interface_endpoints         = []
    vpc_id                      = ""
    subnet_ids                  = []
    endpoints_security_group_id = ""
    egress                      = {}
  }, var.network)

  # By the keys and not by the values: the VPC of an owner's own resource has no id before it exists.
  is_own_vpc = !contains(keys(var.network), "vpc_id")
  own_vpc    = local.is_own_vpc ? { this = true } : {}
  vpc_id     = local.is_own_vpc ? aws_vpc.this["this"].id : local.network.vpc_id
  subnet_ids = local.is_own_vpc ? values(aws_subnet.workers)[*].id : local.network.subnet_ids
  # Workers without a NAT gateway need public addresses to reach the internet.
  public_addresses = local.network.internet_access == "public"

  zone_count = !local.is_own_vpc ? 0 : length(local.network.availability_zones) > 0 ? length(local.network.availability_zones) : 2
  zones      = { for number, name in slice(["a", "b", "c"], 0, local.zone_count) : name => number }
  nat_zones  = { for name, number in local.zones : name => number if local.network.internet_access == "nat_per_zone" || local.network.internet_access == "nat" && number == 0 }
  # Subnets for workers share the block.
  worker_bits = ceil(log(max(1, local.zone_count), 2))

  # Behind a NAT gateway, workers reach AWS services without endpoints. Those of S3 and DynamoDB are
  # free, and save its charge per gigabyte.
  needed_services    = concat(local.broker_interface_services, local.compute_services, local.identity_services, local.task_interface_services)
  interface_services = local.is_own_vpc ? toset(concat(local.network.internet_access == "none" ? local.needed_services : [], local.network.interface_endpoints)) : []
  gateway_services   = local.is_own_vpc ? toset(["dynamodb", "s3"]) : []
  endpoints          = length(local.interface_services) > 0 ? { this = true } : {}
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

  cidr_block           = local.network.cidr
  enable_dns_hostnames = true
  tags                 = { Name = local.name }
}

# The default security group is not used, so it allows nothing.
resource "aws_default_security_group" "this" {
  for_each = local.own_vpc
  vpc_id   = aws_vpc.this["this"].id
}

resource "aws_subnet" "workers" {
  for_each = local.zones

  vpc_id            = aws_vpc.this["this"].id
  availability_zone = concat(local.network.availability_zones, data.aws_availability_zones.available["this"].names)[each.value]
  cidr_block        = cidrsubnet(local.network.cidr, local.worker_bits, each.value)
  tags              = { Name = "${local.name}-${each.key}" }
}

# A block of its own, from the range for shared address space, which a VPC may add to any other. It
# is not routed outside of the VPC.
# https://docs.aws.amazon.com/vpc/latest/userguide/vpc-cidr-blocks.html#add-cidr-block-restrictions
resource "aws_vpc_ipv4_cidr_block_association" "nat" {
  for_each = length(local.nat_zones) > 0 ? { this = "100.64.0.0/26" } : {}

  vpc_id     = aws_vpc.this["this"].id
  cidr_block = each.value
}

resource "aws_subnet" "nat" {
  for_each = local.nat_zones

  vpc_id            = aws_vpc.this["this"].id
  availability_zone = aws_subnet.workers[each.key].availability_zone
  cidr_block        = cidrsubnet(aws_vpc_ipv4_cidr_block_association.nat["this"].cidr_block, 2, each.value)
  tags              = { Name = "${local.name}-nat-${each.key}" }
}

resource "aws_internet_gateway" "this" {
  for_each = { for name, this in local.own_vpc : name => this if local.network.internet_access != "none" }

  vpc_id = aws_vpc.this["this"].id
  tags   = { Name = local.name }
}

resource "aws_eip" "nat" {
  # https://docs.aws.amazon.com/vpc/latest/userguide/vpc-nat-gateway.html
  #checkov:skip=CKV2_AWS_19:It belongs to a NAT gateway.
  for_each = local.nat_zones

  domain = "vpc"
  tags   = { Name = "${local.name}-nat-${each.key}" }
}

resource "aws_nat_gateway" "this" {
  for_each = local.nat_zones

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.nat[each.key].id
  tags          = { Name = "${local.name}-${each.key}" }

  depends_on = [aws_internet_gateway.this]
}

# For subnets whose way to the internet is the internet gateway.
resource "aws_route_table" "public" {
  for_each = aws_internet_gateway.this

  vpc_id = aws_vpc.this["this"].id
  tags   = { Name = "${local.name}-public" }
}

resource "aws_route" "public" {
  for_each = aws_internet_gateway.this

  route_table_id         = aws_route_table.public[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = each.value.id
}

resource "aws_route_table_association" "nat" {
  for_each = local.nat_zones

  subnet_id      = aws_subnet.nat[each.key].id
  route_table_id = aws_route_table.public["this"].id
}

resource "aws_route_table" "private" {
  for_each = { for name, number in local.zones : name => number if !local.public_addresses }

  vpc_id = aws_vpc.this["this"].id
  tags   = { Name = "${local.name}-${each.key}" }
}

resource "aws_route" "nat" {
  for_each = { for name, number in local.zones : name => number if length(local.nat_zones) > 0 }

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[contains(keys(local.nat_zones), each.key) ? each.key : "a"].id
}

resource "aws_route_table_association" "workers" {
  for_each = local.zones

  subnet_id      = aws_subnet.workers[each.key].id
  route_table_id = local.public_addresses ? aws_route_table.public["this"].id : aws_route_table.private[each.key].id
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
  route_table_ids   = concat(values(aws_route_table.private)[*].id, local.public_addresses ? values(aws_route_table.public)[*].id : [])
  tags              = { Name = "${local.name}-${each.key}" }
}

resource "aws_security_group" "endpoints" {
  for_each = local.endpoints

  name        = "${local.name}-endpoints"
  description = "VPC endpoints: HTTPS from workers"
  vpc_id      = local.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = merge(
    { for name, group in aws_security_group.endpoints : name => group.id },
    contains(keys(var.network), "endpoints_security_group_id") ? { shared = local.network.endpoints_security_group_id } : {},
  )

  security_group_id            = each.value
  description                  = "Workers of ${local.name} to VPC endpoints"
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
  description       = "HTTPS: AWS, and web APIs"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "own" {
  for_each = local.network.egress

  security_group_id            = aws_security_group.workers.id
  description                  = each.key
  cidr_ipv4                    = try(each.value.cidr, null)
  referenced_security_group_id = try(each.value.security_group_id, null)
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

# Names of chassis 1.
moved {
  from = aws_subnet.private
  to   = aws_subnet.workers
}
moved {
  from = aws_route_table_association.private
  to   = aws_route_table_association.workers
}
moved {
  from = aws_route_table.private["this"]
  to   = aws_route_table.private["a"]
}
