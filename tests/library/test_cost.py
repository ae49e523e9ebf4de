"""`cost` of an environment: what is counted, from which prices, and what is left out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date

import pytest
from click.testing import CliRunner

from library.support import BROKER, CHASSIS, PROJECT, contract, module

costs = module("cost")
environments = module("cost.environment")
main = module("cli").main
READ = costs.read_prices(contract)
PRICES = READ["prices"]
MODULE = CHASSIS / "terraform" / "service"
ENVIRONMENTS = PROJECT / "terraform" / "environments"


def bill(of=contract, **environment):
    """Return dollars by what they are for."""
    found = environments.environment_lines(of, environments.Environment(**environment), PRICES)
    return {line.what: line.dollars for line in found}


def run(*arguments):
    """Return what the command prints, and the same as JSON."""
    shown = CliRunner().invoke(main, ["cost", *arguments])
    assert shown.exit_code == 0, shown.output
    return shown.output, json.loads(CliRunner().invoke(main, ["cost", *arguments, "--json"]).output)


def test_prices_when_read_then_have_source_date_and_region():
    assert date.fromisoformat(READ["date"]) <= date.today()
    assert READ["region"] == "us-east-1"
    for price in PRICES.values():
        assert price["source"].startswith("https://aws.amazon.com/")
        every = (price.get("dollars_per_million", price.get("dollars")), *price.get("dollars_by_type", {}).values())
        assert any(every)
        assert 0 not in every


def resource_types():
    """Return the types of everything that the module of this service can create."""
    unused = module("contract").OPTION_NAMES - contract.option_names
    files = [path for path in MODULE.glob("*.tf") if unused.isdisjoint(re.split("[._]", path.name))]
    return {kind for path in files for kind in re.findall(r'^resource "(\w+)"', path.read_text(encoding="utf-8"), re.M)}


def test_resources_when_terraform_creates_them_then_are_priced_or_left_out():
    known = costs.read_resources()
    left_out = {kind for kinds in known["left_out"].values() for kind in kinds}
    assert resource_types() <= known["priced"].keys() | left_out | set(known["free"])
    assert set(known["free"]).isdisjoint(known["priced"].keys() | left_out)
    assert known["only"].keys() <= known["left_out"].keys()


def test_resources_when_priced_then_have_a_price_of_that_name():
    every = {
        name for path in costs.FOLDER.glob("*.json") for name in json.loads(path.read_text("utf-8")).get("prices", {})
    }
    assert {name for names in costs.read_resources()["priced"].values() for name in names} <= every


def test_network_when_chosen_then_has_its_price():
    workers = sum(worker.min for worker in contract.workers)
    nat = bill()["NAT gateways"]
    assert nat == pytest.approx(730 * PRICES["nat_gateway_hour"]["dollars"])
    assert bill(network="nat_per_zone", zones=3)["NAT gateways"] == pytest.approx(3 * nat)
    address = 730 * PRICES["public_address_hour"]["dollars"]
    assert bill(network="public")["workers' public addresses"] == pytest.approx(workers * address)
    assert bill(network="existing_public")["workers' public addresses"] == pytest.approx(workers * address)
    assert not {"NAT gateways", "VPC endpoints", "workers' public addresses"} & bill(network="existing").keys()


def test_endpoints_when_counted_then_are_those_of_terraform():
    unused = module("contract").OPTION_NAMES - contract.option_names
    files = [path for path in sorted(MODULE.glob("*.tf")) if unused.isdisjoint(re.split("[._]", path.name))]
    text = "".join(path.read_text("utf-8") for path in files)
    lists = re.findall(r"(?:broker_interface|compute|identity)_services\b *= [^\[\n]*\[([^]]*)\]", text)
    services = {name for listed in lists for name in re.findall(r'"([^"]+)"', listed)}
    assert environments.interface_services(contract, environments.Environment("none")) == services
    hour = PRICES["endpoint_hour"]["dollars"]
    for zones in (1, 2):
        assert bill(network="none", zones=zones)["VPC endpoints"] == pytest.approx(len(services) * zones * 730 * hour)


def test_endpoints_when_further_ones_are_named_then_are_counted_once():
    hour = PRICES["endpoint_hour"]["dollars"]
    further = frozenset({"logs", "sns"})
    assert bill(interface_endpoints=further)["VPC endpoints"] == pytest.approx(2 * 2 * 730 * hour)
    without, both = (bill(network="none", **more)["VPC endpoints"] for more in ({}, {"interface_endpoints": further}))
    assert both - without == pytest.approx(2 * 730 * hour)
    assert "VPC endpoints" not in bill(network="existing", interface_endpoints=further)


def test_instances_when_priced_by_type_then_have_the_price_of_theirs():
    prices = {"node_hour": {"dollars_by_type": {"small": 0.5}}, "own": {"dollars_by_type": {}, "dollars": 2}}
    assert costs.dollars_each(prices["node_hour"], "small") == 0.5
    assert costs.dollars_each(prices["node_hour"], "large") is None
    assert costs.dollars_each(prices["own"], "large") == 2


def test_workers_when_their_min_is_0_then_cost_nothing_but_the_rest_does():
    scaled = replace(contract, workers=tuple(replace(worker, min=0) for worker in contract.workers))
    assert not [what for what in bill(scaled) if "worker" in what]
    assert sum(dollars or 0 for dollars in bill(scaled).values()) > 40


def test_workers_when_counted_then_are_at_their_min():
    twice = replace(contract, workers=tuple(replace(worker, min=2 * worker.min) for worker in contract.workers))
    once, more = bill(), bill(twice)
    for what in (what for what in once if what.startswith("workers'") and once[what] is not None):
        assert more[what] == pytest.approx(2 * once[what])


def test_metrics_of_tasks_when_off_then_cost_nothing():
    assert "metrics of tasks" not in bill(tasks=50)


def test_metrics_of_tasks_when_on_then_cost_by_task_and_queue():
    having = replace(contract, task_metrics=True)
    queues, price = len(contract.queues), PRICES["custom_metric"]["dollars"]
    assert bill(having, tasks=0)["metrics of tasks"] == pytest.approx(2 * queues * price)
    assert bill(having, tasks=50)["metrics of tasks"] == pytest.approx((2 * queues + 5 * 50) * price)
    more = bill(having)["alarms, by metric"] - bill()["alarms, by metric"]
    assert more == pytest.approx(3 * queues * PRICES["alarm_metric"]["dollars"])


def test_number_of_tasks_when_given_then_is_that_of_the_bill(monkeypatch):
    monkeypatch.setattr(module("service"), "contract", lambda: replace(contract, task_metrics=True))
    counts = [run("--tasks-with-metrics", count)[1]["dollars_per_month"] for count in ("10", "11")]
    assert counts[1] - counts[0] == pytest.approx(5 * PRICES["custom_metric"]["dollars"], abs=0.02)
    assert run()[1]["dollars_per_month"] == counts[0]


def test_environment_when_read_then_is_what_its_variables_say(tmp_path):
    (tmp_path / "own.tfvars").write_text(
        """
        # network = { internet_access = "none" }
        network = {
          internet_access    = "public"
          availability_zones = ["a", "b", "c"]
        }
        architecture = "X86_64"
        broker       = { instance_type = "mq.m7g.large", deployment_mode = "CLUSTER_MULTI_AZ" }
        results      = { node_type = "cache.t4g.small", nodes = 3 }
        """
    )
    assert environments.read_environment("own", tmp_path) == environments.Environment(
        "public",
        zones=3,
        architecture="X86_64",
        broker_type="mq.m7g.large",
        broker_nodes=3,
        result_type="cache.t4g.small",
        result_nodes=3,
    )
    (tmp_path / "more.tfvars").write_text('network = { interface_endpoints = ["sns", "kms"] }')
    assert environments.read_environment("more", tmp_path).interface_endpoints == {"sns", "kms"}
    for more, network in (("", "existing"), (', internet_access = "public"', "existing_public")):
        (tmp_path / "vpc.tfvars").write_text(f'network = {{ vpc_id = "vpc-1", subnet_ids = ["subnet-1"]{more} }}')
        assert environments.read_environment("vpc", tmp_path).network == network


def test_environment_when_read_then_has_the_defaults_of_terraform(tmp_path):
    (tmp_path / "empty.tfvars").write_text("")
    read = environments.read_environment("empty", tmp_path)
    assert read == environments.Environment()
    text = "".join(path.read_text("utf-8") for path in sorted(MODULE.glob("*.tf")))
    for option, attribute, default in (
        ("rabbitmq", "instance_type", read.broker_type),
        ("redis", "node_type", read.result_type),
    ):
        stated = re.findall(rf'merge\(\s*{{[^}}]*\b{attribute} *= "([^"]+)"', text)
        assert stated == [default] or option not in contract.option_names


def test_environment_when_generated_then_can_be_read():
    for path in ENVIRONMENTS.glob("*.tfvars"):
        read = environments.read_environment(path.stem, ENVIRONMENTS)
        assert read.broker_nodes == (3 if BROKER == "rabbitmq" and path.stem == "production" else 1)
        assert (
            f"${run('--variables', path.stem)[1]['dollars_per_month']:,.2f} per month"
            in run("--variables", path.stem)[0]
        )


def test_command_when_run_then_names_sum_sources_and_what_is_left_out():
    text, found = run()
    assert f"${found['dollars_per_month']:,.2f} per month" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(PRICES[line["price"]]["source"] in text for line in found["environment"])
    assert "Not included: " in text
    assert "data transfer, and processing by NAT gateways and VPC endpoints" in found["left_out"]
    assert any("Container Insights" in what for what in found["left_out"]) == (contract.compute == "ecs")


def test_prices_when_not_verified_then_are_said_and_can_be_set():
    # No page was found with the price of the broker's default type.
    unknown = ["broker_hour"] if BROKER == "rabbitmq" else []
    text, found = run()
    assert found["without_price"] == unknown
    assert ("At least $" in text) == bool(unknown)
    assert all(f"--price {name}=DOLLARS" in " ".join(text.split()) for name in unknown)
    given = [argument for name in unknown for argument in ("--price", f"{name}=0.5")]
    more = run(*given)[1]
    assert more["without_price"] == []
    assert (more["dollars_per_month"] > found["dollars_per_month"]) == bool(unknown)


@pytest.mark.parametrize(
    "price", ["nat_gateway=1", "nat_gateway_hour=x", "nat_gateway_hour=nan", "nat_gateway_hour=-1"]
)
def test_price_when_it_is_none_then_is_refused(price):
    assert CliRunner().invoke(main, ["cost", "--price", price]).exit_code == 2


def test_variables_when_there_are_none_then_are_refused():
    assert CliRunner().invoke(main, ["cost", "--variables", "nowhere"]).exit_code == 2
