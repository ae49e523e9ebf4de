"""`cost`: what is worked out, from which prices."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest
from click.testing import CliRunner

from celery_aws.contract import Schedule
from library.support import CONTRACT, IS_FIFO, RESULT_PRICES, contract, module

cost = module("cli.sqs.cost")
main = module("cli").main
PRICES = cost.read_prices(contract)["prices"]


def counts(tasks=1_000_000, kib=1, deliveries=1, batches=False):
    found = cost.lines(contract, cost.Load(tasks, kib, deliveries, batches), PRICES)
    return {line.what: line.count for line in found if line.price == "sqs_request"}


def test_an_idle_month_is_polls_alone():
    found = counts(tasks=0)
    assert found.pop("idle polls") == contract.idle_requests_per_month > 0
    assert set(found.values()) == {0}


def test_every_task_is_sent_received_and_deleted():
    found = counts()
    assert [found[what] for what in ("sent", "received", "deleted", "released")] == [1e6, 1e6, 1e6, 0]


def test_batches_hold_ten_or_64_kib():
    assert counts(batches=True)["sent"] == 100_000
    assert counts(kib=30, batches=True)["sent"] == 500_000
    assert counts(kib=300, batches=True)["sent"] == 5_000_000


def test_failures_cost_deliveries():
    found = counts(deliveries=1.5)
    assert (found["received"], found["released"], found["sent"]) == (1.5e6, 0.5e6, 1e6)


def test_the_first_million_is_free():
    line = cost.Line("x", "", 3_000_000, "sqs_request", 0.0)
    ((_, used, free, dollars),) = cost.bill([line], PRICES)
    assert (used, free, dollars) == (3e6, 1e6, pytest.approx(1.0 if IS_FIFO else 0.8))


def test_messages_of_schedules_and_long_delays_are_counted():
    def scheduled(**fields):
        return Schedule(name="a", task="t", **fields)

    known = [scheduled(rate_minutes=10), scheduled(cron="0 6 * * *"), scheduled(at="2027-01-31T06:30:00")]
    known += [scheduled(cron="* * * * *", enabled=False)]
    load = cost.Load(0, 1, 1, False, long_delays=1_000)
    found = cost.lines(replace(contract, schedules=tuple(known), long_delays=True), load, PRICES)
    assert [line.count for line in found if line.price == "scheduled_message"] == [6 * 24 * 30 + 30 + 1 + 1_000]
    assert "scheduled_message" not in {line.price for line in cost.lines(contract, load, PRICES)}


def test_remote_control_when_off_then_costs_nothing():
    assert "control_read" not in {line.price for line in cost.lines(contract, cost.Load(0, 1, 1, False), PRICES)}


def test_remote_control_when_on_then_each_worker_polls_every_two_seconds():
    workers = tuple(replace(worker, min=number) for number, worker in enumerate(contract.workers, 1))
    found = cost.lines(replace(contract, remote_control=True, workers=workers), cost.Load(0, 1, 1, False), PRICES)
    (line,) = (line for line in found if line.price == "control_read")
    assert line.count == sum(worker.min for worker in workers) * 30 * 86_400 / 2 / 2  # An answer is half a unit.
    assert line.dollars == pytest.approx(0.081 * sum(worker.min for worker in workers))


def test_every_price_has_its_source_and_their_date():
    prices = cost.read_prices(contract)
    assert date.fromisoformat(prices["date"]) <= date.today()
    by_million = {name for name, price in prices["prices"].items() if "dollars_per_million" in price}
    assert by_million == {"sqs_request", "scheduled_message", "control_read", *RESULT_PRICES}
    assert all(prices["prices"][name]["dollars_per_million"] > 0 for name in by_million)


def test_command_shows_formula_and_sum_without_credentials(monkeypatch):
    for name in ("ENVIRONMENT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    arguments = ["cost", "--tasks-per-month", "10000000", "--deliveries", "1.2"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert all(len(line) <= 80 for line in shown.output.splitlines()), shown.output
    assert "10,000,000 tasks x" in shown.output
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert f"${found['dollars_per_month']:,.2f} per month" in shown.output
    stored = CONTRACT["results"] in ("s3", "dynamodb")
    assert found["dollars_per_month"] > (20 if stored else 10)
    assert CliRunner().invoke(main, ["cost", "--deliveries", "0"]).exit_code == 2
