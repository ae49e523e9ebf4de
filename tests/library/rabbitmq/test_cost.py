"""`cost` of RabbitMQ: what is worked out, from which prices."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date

import pytest
from click.testing import CliRunner

from library.support import CHASSIS, CONTRACT, RESULT_PRICES, contract, module

cost = module("cli.rabbitmq.cost")
environments = module("cost.environment")
main = module("cli").main
PRICES = cost.read_prices(contract)["prices"]


def dollars(**environment):
    """Return dollars by the price's name, with a broker whose type has a price."""
    found = environments.environment_lines(
        contract, environments.Environment(**{"broker_type": "mq.m7g.large", **environment}), PRICES
    )
    return {line.price: line.dollars for line in found}


def test_broker_when_idle_then_costs_hours_and_storage():
    hour, gb = PRICES["broker_hour"]["dollars_by_type"]["mq.m7g.large"], PRICES["broker_storage"]["dollars"]
    for nodes in (1, 3):
        found = dollars(broker_nodes=nodes, broker_gb=10)
        assert found["broker_hour"] == pytest.approx(nodes * 730 * hour)
        assert found["broker_storage"] == pytest.approx(nodes * 10 * gb)


def test_broker_when_its_type_has_no_price_then_is_not_that_of_another():
    assert dollars(broker_type="mq.m7g.16xlarge")["broker_hour"] is None


def test_tasks_when_delivered_then_cost_what_their_results_do():
    once, twice = (sum(line.dollars for line in cost.lines(count, PRICES)) for count in (1e6, 2e6))
    assert (once > 0) == (CONTRACT["results"] in ("s3", "dynamodb"))
    assert twice == pytest.approx(2 * once)


def test_every_price_has_its_source_and_their_date():
    prices = cost.read_prices(contract)
    assert date.fromisoformat(prices["date"]) <= date.today()
    assert {"broker_hour", "broker_storage", *RESULT_PRICES} <= prices["prices"].keys()


def test_command_shows_formula_and_sum_without_credentials(monkeypatch):
    for name in ("ENVIRONMENT", "BROKER_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    arguments = ["cost", "--variables", "production", "--tasks-per-month", "10000000", "--deliveries", "1.2"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert all(len(line) <= 80 for line in shown.output.splitlines()), shown.output
    assert "3 x 730 hours x $" in shown.output
    assert PRICES["broker_hour"]["source"] in shown.output
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert f"${found['dollars_per_month']:,.2f} per month" in shown.output
    own = json.loads(CliRunner().invoke(main, ["cost", "--nodes", "3", "--price", "broker_hour=1", "--json"]).output)
    assert {line["price"]: line["dollars"] for line in own["environment"]}["broker_hour"] == 3 * 730
    assert CliRunner().invoke(main, ["cost", "--deliveries", "0"]).exit_code == 2
    assert CliRunner().invoke(main, ["cost", "--nodes", "2"]).exit_code == 2


def test_beat_when_there_are_schedules_then_costs_what_terraform_creates():
    schedule = module("contract").Schedule(name="nightly", task="any", rate_minutes=1, enabled=False)
    for network, more in (("existing", 0), ("public", 1)):
        here = environments.Environment(network=network)
        without, having = (
            {line.what: line for line in environments.environment_lines(each, here, PRICES)}
            for each in (contract, replace(contract, schedules=(schedule,)))
        )
        beat = {what: line for what, line in having.items() if what not in without}
        assert beat.keys() == {what for what in having if "beat" in what}
        counts = {
            line.price: round(line.count / (730 if line.price.endswith("_hour") else 1), 3) for line in beat.values()
        }
        on_ecs, on_ec2 = {"arm64_vcpu_hour": 0.25, "arm64_gb_hour": 0.5}, {"instance_hour": 1, "volume_gb": 20}
        assert counts == (on_ecs if contract.compute == "ecs" else on_ec2)
        changed = {what: line.count - without[what].count for what, line in having.items() if what in without}
        expected = {"alarms, by metric": 2, "published metrics": 1, "workers' public addresses": 730 * more}
        assert {what: count for what, count in changed.items() if count} == {
            what: count for what, count in expected.items() if count
        }


def test_size_of_the_beat_is_that_of_terraform():
    modules = CHASSIS / "terraform" / "service"
    ecs, ec2 = ((modules / f"beat_rabbitmq_{name}.tf").read_text(encoding="utf-8") for name in ("ecs", "ec2"))
    found = [int(re.search(rf"^  {name} *= (\d+)", ecs, re.M)[1]) / 1024 for name in ("cpu", "memory")]
    assert found == [environments.BEAT_VCPU, environments.BEAT_GB]
    assert dict(re.findall(r'(ARM64|X86_64) = "([^"]+)"', ec2)) == environments.BEAT_INSTANCES
