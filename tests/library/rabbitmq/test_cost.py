"""`cost` of RabbitMQ: what is worked out, from which prices."""

from __future__ import annotations

import json
from datetime import date

import pytest
from click.testing import CliRunner

from library.support import CONTRACT, RESULT_PRICES, contract, module

cost = module("cli.rabbitmq.cost")
main = module("cli").main
PRICES = cost.read_prices(contract)["prices"]


def dollars(nodes=1, gb=0.0, tasks=0, deliveries=1.0, hour=0.5):
    return [line.dollars for line in cost.lines(cost.Load(nodes, gb, tasks, deliveries), hour, PRICES)]


def test_an_idle_month_is_hours_and_storage():
    assert dollars()[0] == pytest.approx(365)
    assert dollars(nodes=3)[0] == pytest.approx(3 * 365)
    price = PRICES["broker_storage"]["dollars"]
    assert dollars(nodes=3, gb=10)[1] == pytest.approx(30 * price)
    assert sum(dollars()[1:]) == 0


def test_tasks_cost_what_their_results_do():
    stored = CONTRACT["results"] in ("s3", "dynamodb")
    once, twice = sum(dollars(tasks=1_000_000)[2:]), sum(dollars(tasks=1_000_000, deliveries=2)[2:])
    assert (once > 0) == stored
    assert twice == pytest.approx(2 * once)


def test_every_price_has_its_source_and_their_date():
    prices = cost.read_prices(contract)
    assert date.fromisoformat(prices["date"]) <= date.today()
    for price in prices["prices"].values():
        assert price["source"].startswith("https://aws.amazon.com/")
        assert price.get("dollars_per_million", price.get("dollars")) > 0
    assert prices["prices"].keys() == {"broker_hour", "broker_storage", *RESULT_PRICES}


def test_command_shows_formula_and_sum_without_credentials(monkeypatch):
    for name in ("ENVIRONMENT", "BROKER_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    arguments = ["cost", "--nodes", "3", "--tasks-per-month", "10000000", "--deliveries", "1.2"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert all(len(line) <= 80 for line in shown.output.splitlines()), shown.output
    assert "3 x 730 hours x $" in shown.output
    assert "check the page above" in " ".join(shown.output.split())
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert f"${found['dollars_per_month']:,.2f} per month" in shown.output
    own = json.loads(CliRunner().invoke(main, ["cost", "--dollars-per-hour", "1", "--json"]).output)
    assert own["lines"][0]["dollars"] == 730
    assert CliRunner().invoke(main, ["cost", "--deliveries", "0"]).exit_code == 2
    assert CliRunner().invoke(main, ["cost", "--nodes", "2"]).exit_code == 2
