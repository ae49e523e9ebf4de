"""Scaling as Terraform plans it, run over late and missing metrics; see scaling.py for what is modelled."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess

import pytest
from conftest import need
from metric_math import Alarm, evaluate
from scaling import Planned, Setting, World
from test_terraform import clean_environment, initialize

pytestmark = pytest.mark.timeout(300)

SECONDS_PER_TASK = {"urgent": 5, "slow": 60, "alone": 5}
WORKERS = {"one": ["alone"], "several": ["urgent", "slow"]}
BACKLOG_PER_WORKER = {"urgent": 24, "slow": 20, "alone": 24}
"""What two processes clear within the acceptable latency."""

RUNS = """
mock_provider "aws" {
  source          = "./mocks"
  override_during = plan
}

variables {
  contract    = merge(jsondecode(file("../../../contract.json")), %s)
  environment = "staging"
  image_tag   = "1"
}

run "scaling" {
  command = plan
}
"""


def contract_of(least, is_sqs):
    """Return the queues and workers; `least` is the workers' min."""
    latency = {"urgent": 60, "slow": 600, "alone": 60}
    more = {"visibility_timeout_seconds": 1_200} if is_sqs else {}
    return {
        "queues": [
            {"name": name, "acceptable_latency_seconds": latency[name], "seconds_per_task": seconds, **more}
            for name, seconds in SECONDS_PER_TASK.items()
        ],
        "workers": [
            {"name": name, "queues": queues, "concurrency": 2, "min": least, "max": 50}
            for name, queues in WORKERS.items()
        ],
    }


def plan(folder, least, is_sqs):
    """Return the resources that Terraform plans, by their addresses."""
    service = folder / "chassis" / "terraform" / "service"
    test = service / "tests" / "scaling.tftest.hcl"
    test.parent.mkdir(exist_ok=True)
    test.write_text(RUNS % json.dumps(contract_of(least, is_sqs)), encoding="utf-8")
    ran = subprocess.run(
        ["terraform", "test", "-json", "-verbose", f"-filter=tests/{test.name}"],
        cwd=service,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr
    (planned,) = (
        report["test_plan"] for line in ran.stdout.splitlines() if "test_plan" in (report := json.loads(line))
    )
    return {each["address"]: each["change"]["after"] for each in planned["resource_changes"]}


def alarm(planned):
    """Return an alarm that Terraform plans."""
    (expression,) = (query["expression"] for query in planned["metric_query"] if query["expression"])
    threshold = planned["threshold"]
    breaches = {
        "GreaterThanThreshold": lambda value: value > threshold,
        "LessThanOrEqualToThreshold": lambda value: value <= threshold,
    }[planned["comparison_operator"]]
    return Alarm(expression, breaches, planned["evaluation_periods"], planned["treat_missing_data"])


def planned_scaling(resources, worker, compute):
    """Return what Terraform plans for a worker."""
    if compute == "ecs":
        policy = resources[f'aws_appautoscaling_policy.backlog["{worker}"]']
        (tracking,) = policy["target_tracking_scaling_policy_configuration"]
    else:
        policy = resources[f'aws_autoscaling_policy.backlog["{worker}"]']
        (tracking,) = policy["target_tracking_configuration"]
    assert tracking["target_value"] == 1
    metrics = tracking["customized_metric_specification"][0]["metrics"]
    (expression,) = (metric["expression"] for metric in metrics if metric["expression"])
    alarms = {
        name: resources.get(f'aws_cloudwatch_metric_alarm.{name}["{worker}"]') for name in ("from_zero", "to_zero")
    }
    return Planned(
        expression,
        cooldown_seconds=tracking["scale_out_cooldown"] if compute == "ecs" else policy["estimated_instance_warmup"],
        scales_in=not tracking["disable_scale_in"],
        **{name: alarm(found) for name, found in alarms.items() if found},
    )


PLACES = ["sqs-standard ecs", "sqs-standard ec2", "rabbitmq ecs", "rabbitmq ec2"]


@pytest.fixture(
    scope="session", params=[PLACES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in PLACES[1:])]
)
def setting(request, bake, tmp_path_factory):
    """Return what makes the setting of a worker: its name, and the least number of workers."""
    need("terraform")
    broker, compute = request.param.split()
    folder = shutil.copytree(bake(broker=broker, compute=compute), tmp_path_factory.mktemp("scaling") / "service")
    initialize(folder / "chassis" / "terraform" / "service")
    is_sqs = broker != "rabbitmq"  # Whose workers do not scale to zero.
    resources = {least: plan(folder, least, is_sqs) for least in ((0, 1) if is_sqs else (1,))}

    def make(worker, least=1, **more):
        if min(least, 1) not in resources:
            pytest.skip("workers of RabbitMQ do not scale to zero")
        planned = planned_scaling(resources[min(least, 1)], worker, compute)
        per_task = {queue: SECONDS_PER_TASK[queue] for queue in WORKERS[worker]}
        return Setting(planned, compute == "ec2", is_sqs, **{"seconds_per_task": per_task, "least": least, **more})

    return make


@pytest.fixture(params=WORKERS)
def worker(request):
    return request.param


def steady(workers, queues):
    """Return the messages a minute, by queue, that keep so many workers busy."""
    return {queue: workers / len(queues) * 2 * 60 / SECONDS_PER_TASK[queue] for queue in queues}


def late(metric, minutes, first=0, last=10**9):
    """Return a lateness: of one metric so many minutes (None for missing), of the others as ever."""

    def lateness(name, minute):
        usual = 2 if name == "running" else 1
        return minutes if name.startswith(metric) and first <= minute <= last else usual

    return lateness


def started(history):
    """Return how many workers were started."""
    return sum(max(0, after - before) for before, after in itertools.pairwise(history))


def test_backlog_when_sudden_then_gets_the_workers_it_needs(setting, worker):
    world = World(setting(worker))
    world.run(30)
    burst = 10 * BACKLOG_PER_WORKER[WORKERS[worker][-1]]
    world.send(WORKERS[worker][-1], burst)
    world.run(10)
    assert 6 <= world.desired <= 11
    world.run(180)
    assert world.desired == 1
    assert max(world.history) <= 11


def test_backlog_when_it_grows_then_gets_more_workers_at_once(setting, worker):
    world = World(setting(worker))
    queue = WORKERS[worker][-1]
    world.run(30)
    world.send(queue, 8 * BACKLOG_PER_WORKER[queue])
    world.run(5)
    assert 4 <= world.desired <= 9
    world.send(queue, 20 * BACKLOG_PER_WORKER[queue])
    world.run(4)
    assert 15 <= world.desired <= 29


@pytest.mark.parametrize("minutes", [3, 6, None])
@pytest.mark.parametrize("metric", ["running", "visible"])
def test_load_when_a_metric_is_late_then_keeps_its_workers(setting, worker, metric, minutes):
    queues = WORKERS[worker]
    usual, disturbed = (
        World(setting(worker, least=4, **more)) for more in ({}, {"late": late(metric, minutes, 90, 110)})
    )
    for world in (usual, disturbed):
        world.run(360, steady(5.7, queues))
    assert 6 <= max(usual.history) <= 20
    assert max(disturbed.history) <= max(usual.history) + 2
    assert started(disturbed.history) <= started(usual.history) + 10


@pytest.mark.parametrize("minutes", [0, 1, 2, 4])
def test_load_when_steady_then_does_not_flap(setting, worker, minutes):
    queues = WORKERS[worker]
    world = World(setting(worker, least=4, late=lambda name, minute: minutes if name == "running" else 1))
    world.run(360, steady(5.7, queues))
    assert started(world.history) <= 60  # In six hours.
    assert max(world.history) <= 20


def test_workers_when_they_cannot_start_then_are_not_multiplied(setting, worker):
    world = World(setting(worker))
    world.run(5)
    for each in world.workers:
        each.ready_at = 10**9
    world.send(WORKERS[worker][0], 500)
    world.run(120)
    assert world.desired == 1


@pytest.mark.parametrize("reports_zero", [True, False])
def test_worker_when_its_min_is_0_then_scales_to_zero_and_back(setting, worker, reports_zero):
    queue = WORKERS[worker][0]
    world = World(setting(worker, least=0, reports_zero=reports_zero))
    world.run(20)
    for idle_minutes in (30, 10 * 60):  # After six hours without use SQS has no metrics.
        world.send(queue)
        world.run(20)
        assert max(world.history[-20:]) == 1
        assert world.waiting[queue] == 0
        world.run(20)
        assert world.desired == 0
        world.run(idle_minutes)
        assert max(world.history[-idle_minutes:]) == 0


def test_worker_when_its_min_is_0_then_follows_the_backlog(setting, worker):
    queue = WORKERS[worker][-1]
    world = World(setting(worker, least=0))
    world.run(20)
    world.send(queue, 10 * BACKLOG_PER_WORKER[queue])
    world.run(25)
    assert 6 <= max(world.history) <= 12
    world.run(90)
    assert world.desired == 0
    assert started(world.history) == max(world.history)


@pytest.mark.parametrize("delay_seconds", [0, 900])
def test_worker_when_a_task_is_long_or_delayed_then_is_not_scaled_to_zero(setting, worker, delay_seconds):
    queue = WORKERS[worker][-1]
    per_task = dict.fromkeys(WORKERS[worker], 3_000)
    world = World(setting(worker, least=0, seconds_per_task=per_task))
    world.run(20)
    world.send(queue)
    world.run(5)
    world.send(queue, delay_seconds=delay_seconds)
    world.run(45)
    assert min(world.history[-40:]) >= 1
    assert max(world.history) <= 2
    world.run(60)
    assert world.desired == 0


@pytest.mark.parametrize(("metric", "last"), [("visible", 80), ("in_flight", 67), ("running", 80)])
def test_worker_when_metrics_are_lost_then_keeps_its_number(setting, worker, metric, last):
    queues = WORKERS[worker]
    world = World(setting(worker, least=0, late=late(metric, None, 60, last)))
    world.run(180, steady(0.8, queues))
    assert min(world.history[30:]) >= 1
    assert max(world.history) <= 4


def test_scale_from_zero_when_the_newest_minute_is_late_then_happens(setting, worker):
    world = World(setting(worker, least=0, late=lambda name, minute: 2))
    world.run(20)
    world.send(WORKERS[worker][-1])
    world.run(15)
    assert max(world.history) == 1


def test_fill_when_the_newest_minute_is_late_then_repeats_or_replaces():
    metrics = {"a": [None, 1.0, None, 3.0, None], "b": [2.0, 2.0, 0.0, None, 4.0]}
    assert evaluate("FILL(a, 0)", metrics) == [0, 1, 0, 3, 0]
    assert evaluate("FILL(a, REPEAT)", metrics) == [None, 1, 1, 3, 3]
    assert evaluate("a / b", metrics) == [None, 0.5, None, None, None]
    assert evaluate("IF(b > 0, 10 / b)", metrics) == [5, 5, None, None, 2.5]
    assert evaluate("IF(FILL(b, 0) > 1 AND FILL(a, 0) == 0, 1, 0)", metrics) == [1, 0, 0, 0, 1]
