# The network of the workers, with the real provider. Nothing is contacted.

provider "aws" {
  region                      = "eu-west-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
}

override_data {
  target = data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

override_data {
  target = data.aws_availability_zones.available
  values = { names = ["zone-a", "zone-b", "zone-c"] }
}

variables {
  contract    = jsondecode(file("../../../contract.json"))
  environment = "staging"
  image_tag   = "1"
}

run "by_default_tasks_can_call_a_web_api" {
  command = plan

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.nat) == 2 && alltrue([for route in aws_route.nat : route.destination_cidr_block == "0.0.0.0/0"])
    error_message = "Some workers have no way to the internet."
  }

  assert {
    condition     = length(aws_vpc_endpoint.interface) == 0
    error_message = "Endpoints would cost more than the NAT gateway that makes them unnecessary."
  }

  assert {
    condition     = !local.public_addresses && [for subnet in aws_subnet.workers : subnet.availability_zone] == ["zone-a", "zone-b"]
    error_message = "Workers have public addresses, or are not in two zones."
  }

  assert {
    condition     = [for subnet in concat(values(aws_subnet.workers), values(aws_subnet.nat)) : subnet.cidr_block] == ["10.0.0.0/23", "10.0.2.0/23", "100.64.0.0/28"]
    error_message = "Subnets overlap, or waste addresses."
  }
}

run "each_zone_may_have_a_nat_gateway" {
  command = plan

  variables {
    network = { internet_access = "nat_per_zone", availability_zones = ["zone-a", "zone-b", "zone-c"], cidr = "10.1.0.0/25" }
  }

  assert {
    condition     = [for subnet in concat(values(aws_subnet.workers), values(aws_subnet.nat)) : subnet.cidr_block] == ["10.1.0.0/27", "10.1.0.32/27", "10.1.0.64/27", "100.64.0.0/28", "100.64.0.16/28", "100.64.0.32/28"]
    error_message = "Subnets overlap, or not every zone has its own."
  }
}

run "without_a_nat_gateway_workers_have_public_addresses" {
  command = plan

  variables {
    network = { internet_access = "public", availability_zones = ["zone-a"] }
  }

  assert {
    condition     = local.public_addresses && length(aws_nat_gateway.this) + length(aws_vpc_endpoint.interface) == 0 && length(aws_subnet.workers) == 1 && length(aws_internet_gateway.this) == 1
    error_message = "The cheapest network has parts that cost money, or no way to the internet."
  }
}

run "without_internet_access_every_service_has_an_endpoint" {
  command = plan

  variables {
    network = { internet_access = "none", interface_endpoints = ["sns"] }
  }

  assert {
    condition     = length(aws_internet_gateway.this) + length(aws_nat_gateway.this) + length(aws_route_table.public) == 0 && contains(keys(aws_vpc_endpoint.gateway), "s3")
    error_message = "There is a way to the internet."
  }

  assert {
    condition     = length(setsubtract(concat(local.needed_services, ["sns", "logs", "ecr.dkr"]), keys(aws_vpc_endpoint.interface))) == 0 && length(aws_security_group.endpoints) == 1
    error_message = "Workers could not reach a service that they need."
  }
}

run "workers_connect_where_the_owner_says" {
  command = plan

  variables {
    network = {
      egress = {
        database = { port = 5432, cidr = "10.9.0.0/16" }
        cache    = { port = 6379, security_group_id = "sg-9" }
      }
    }
  }

  assert {
    condition = { for name, rule in aws_vpc_security_group_egress_rule.own : name => join(" ", compact([rule.from_port, rule.to_port, rule.cidr_ipv4, rule.referenced_security_group_id])) } == {
      database = "5432 5432 10.9.0.0/16"
      cache    = "6379 6379 sg-9"
    }
    error_message = "Workers cannot connect, or can connect to more."
  }
}

run "the_way_to_the_internet_can_be_changed_while_workers_run" {
  command = plan

  variables {
    network = { internet_access = "none" }
  }

  assert {
    # Subnets in which something runs cannot be replaced.
    condition     = [for subnet in aws_subnet.workers : subnet.cidr_block] == ["10.0.0.0/23", "10.0.2.0/23"]
    error_message = "Workers are in other subnets than with a NAT gateway."
  }
}

run "a_network_that_cannot_be_made_is_refused" {
  command = plan

  variables {
    network = { cidr = "10.0.0.0/28" }
  }

  expect_failures = [var.network]
}

run "a_way_to_the_internet_that_is_unknown_is_refused" {
  command = plan

  variables {
    network = { internet_access = "vpn" }
  }

  expect_failures = [var.network]
}

run "what_does_not_go_with_an_existing_vpc_is_refused" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], internet_access = "nat" }
  }

  expect_failures = [var.network]
}

run "an_egress_without_a_destination_is_refused" {
  command = plan

  variables {
    network = { egress = { database = { port = 5432 } } }
  }

  expect_failures = [var.network]
}
