"""Tests for every service; add them with `from celery_aws.testing.conformance import *`.

They check that the generated files, the code and the queues agree with the contract, and run a task
through each queue on the emulator.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import celery_aws

from .. import app as apps
from .. import contract as contracts
from .. import service as services
from ..contract import Queue, Schedule
from ..dev import compose, emulator, timeouts
from ..dlq import find
from ..strays import stray_modules
from . import terraform
from .plugin import outcome_in
from .running import RunningService, eventually

__all__ = [
    "test_code_when_it_uses_the_chassis_then_by_public_names",
    "test_copies_of_the_contract_are_current",
    "test_environment_variables_are_in_the_example",
    "test_modules_of_tasks_are_those_of_queues",
    "test_queue_has_a_route",
    "test_queue_when_a_task_fails_then_is_dead_lettered_and_resent",
    "test_queue_when_a_task_is_sent_then_is_done_once",
    "test_schedule_when_it_is_due_then_its_task_takes_the_arguments",
    "test_terraform_creates_each_queue_with_its_alarms",
    "test_terraform_gives_workers_the_variables_they_read",
    "test_terraform_is_formatted",
    "test_terraform_runs_workers_of_each_queue",
]

FROM_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "BROKER_USERNAME", "BROKER_PASSWORD")
"""Variables that workers take from secrets which Terraform creates, and whose content it does not know."""

CONTRACT = contracts.read(emulator.PROJECT / "contract.json")
each_queue = pytest.mark.parametrize("queue", CONTRACT.queues, ids=lambda queue: queue.name)
end_to_end = pytest.mark.end_to_end


def test_copies_of_the_contract_are_current() -> None:
    """`make test` updates both files, so this fails in CI if an update was not committed."""
    for target, text in ((compose.TARGET, compose.text()), (timeouts.TARGET, timeouts.text())):
        assert target.read_text(encoding="utf-8") == text, f"run `make {target.name}`"


def test_code_when_it_uses_the_chassis_then_by_public_names() -> None:
    """All other names may change with the next version of the chassis."""
    found = [
        f"{path.relative_to(emulator.PROJECT)}: {name}"
        for path in sorted((emulator.PROJECT / "src").rglob("*.py"))
        for name in _names_of_the_chassis(path)
        if name.partition(".")[0] not in celery_aws.__all__
    ]
    assert found == [], "chassis/README.md lists what a service may use"


def _names_of_the_chassis(path: Path) -> list[str]:
    """Return the names that a module uses of the chassis, without the prefix `celery_aws.`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name if not alias.asname else f"{alias.name}.(as {alias.asname})" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        else:
            continue
        found += [name.partition(".")[2] for name in names if name.startswith("celery_aws.")]
    return found


def variables() -> dict[str, Any]:
    """Return the fields of the environment variables that the service reads, by the variables' names."""
    services.use(CONTRACT.package)
    classes = (type(services.app().settings), *apps.variables(CONTRACT))
    return {name.upper(): field for each in classes for name, field in each.model_fields.items()}


def test_environment_variables_are_in_the_example() -> None:
    """`.env.example` documents all environment variables."""
    shown = re.findall(r"^#?([A-Z_]+)=", (emulator.PROJECT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in variables() if name not in shown] == []


def test_modules_of_tasks_are_those_of_queues() -> None:
    """A module with another name is loaded by no worker; a mistyped one would leave its queue without tasks."""
    found = stray_modules(CONTRACT, emulator.PROJECT / "src" / CONTRACT.package)
    assert not found, "\n".join(found.values())


@each_queue
def test_queue_has_a_route(queue: Queue) -> None:
    """A task in the queue's module is routed to the queue."""
    services.use(CONTRACT.package)
    route = services.app().amqp.router.route({}, f"{CONTRACT.package}.tasks.{queue.module}.anything")
    assert route["queue"].name == CONTRACT.celery_name(queue)


@pytest.mark.parametrize("schedule", CONTRACT.schedules, ids=lambda schedule: schedule.name)
def test_schedule_when_it_is_due_then_its_task_takes_the_arguments(schedule: Schedule) -> None:
    """The service has the task of each schedule, in the schedule's queue, and it takes these arguments."""
    services.use(CONTRACT.package)
    app = services.app()
    name = CONTRACT.full_name(schedule.task)
    app.loader.import_default_modules()
    assert name in app.tasks, (
        f"schedule {schedule.name}: there is no task {name}; name it <module>.<function>, by its module in tasks/, "
        f"or by its full name"
    )
    task = app.tasks[name]
    bind = inspect.signature(task.run).bind
    bind(*schedule.args, **schedule.kwargs)
    routed = app.queue_of_task(task.name)
    assert schedule.queue or routed == CONTRACT.queue_of(schedule), f"{schedule.name}: name its queue in the contract"
    if CONTRACT.broker != "rabbitmq":  # The message is not made by the service.
        own = [name for name in ("expires", "deduplication_key", "serializer") if _is_own(task, name)]
        assert own == [], f"EventBridge Scheduler sends {task.name} without these; schedule a task that sends it"


def _is_own(task: Any, name: str) -> bool:
    """Return whether a task states an option itself."""
    stated = getattr(task, name, None)
    return stated is not None and not (name == "serializer" and stated == "json")


def send(service: RunningService, task: str, argument: str, queue: Queue) -> Any:
    """Send one of the test tasks to a queue, in its own message group."""
    options = {"queue": service.contract.celery_name(queue), "MessageGroupId": "conformance"}
    return service.app.send_task(f"celery_aws.testing.tasks.{task}", [argument], **options)


@each_queue
@end_to_end
def test_queue_when_a_task_is_sent_then_is_done_once(service: RunningService, queue: Queue) -> None:
    """A worker runs the task and deletes its message."""
    with service.reached():
        task_id = send(service, "echo", "hello", queue).id
    worker = CONTRACT.worker_of(queue).name
    assert eventually(lambda: outcome_in(service.log(worker), task_id)) == "succeeded", service.log(worker)
    assert eventually(lambda: service.waiting(queue) == 0)


@each_queue
@end_to_end
def test_queue_when_a_task_fails_then_is_dead_lettered_and_resent(
    service: RunningService, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed task is dead-lettered, and succeeds after it is resent."""
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    missing, worker = tmp_path / "missing", CONTRACT.worker_of(queue).name
    task_id = send(service, "read", str(missing), queue).id
    assert eventually(lambda: outcome_in(service.log(worker), task_id)) == "dead_lettered", service.log(worker)
    assert eventually(lambda: service.dead(queue) > 0)
    missing.write_text("found", encoding="utf-8")
    dead_letters = find(queue.name, service.environment["ENVIRONMENT"])
    with dead_letters.peek() as peek:
        for page in peek.pages():
            own = [message for message in page if message.id == task_id]
            peek.delete(dead_letters.resend(own).accepted)
    assert eventually(lambda: outcome_in(service.log(worker), task_id) == "succeeded"), service.log(worker)


def test_terraform_is_formatted() -> None:
    """`terraform fmt -recursive` in terraform/ formats the files that this lists."""
    terraform.need()
    assert terraform.run("fmt", "-check", "-recursive") == ""


@pytest.mark.timeout(600)  # The first `terraform init` loads the provider from the network.
def test_terraform_creates_each_queue_with_its_alarms() -> None:
    """Queue and dead-letter queue have the names that the service uses, and alarms watch both.

    Queues that are not managed exist already. Those of another account have no metrics in this one.
    """
    queues = terraform.planned()["output_changes"]["queues"]["after"]
    assert queues == {
        queue.name: {
            "queue": CONTRACT.queue_name(queue, "staging"),
            "dead_letters": CONTRACT.dead_letter_queue_name(queue, "staging"),
        }
        for queue in CONTRACT.queues
    }
    changes = terraform.planned()["resource_changes"]
    created = [
        (change["name"], change["index"])
        for change in changes
        if change["type"] == "aws_sqs_queue" and change.get("module_address") == "module.service"
    ]
    managed = [queue.name for queue in CONTRACT.queues if queue.managed and CONTRACT.broker != "rabbitmq"]
    of_scheduler = [("scheduler_dead_letters", "this")] if CONTRACT.uses_scheduler else []
    expected = [(kind, name) for name in managed for kind in ("main", "dead_letters")]
    assert sorted(created) == sorted(expected + of_scheduler)
    alarms = [change["change"]["after"] for change in changes if change["type"] == "aws_cloudwatch_metric_alarm"]
    watched = set(re.findall(r'"(?:QueueName|Queue)": "([^"]+)"', json.dumps(alarms)))
    own = {name for queue in CONTRACT.queues if not queue.account for name in queues[queue.name].values()}
    assert own - watched == set()


@each_queue
@pytest.mark.timeout(600)
def test_terraform_runs_workers_of_each_queue(queue: Queue) -> None:
    """An ECS service or an Auto Scaling group runs the worker that serves the queue."""
    kinds, worker = ("aws_ecs_service", "aws_autoscaling_group"), CONTRACT.worker_of(queue).name
    runners = [
        change
        for change in terraform.planned()["resource_changes"]
        if change["type"] in kinds and change["name"] == "worker" and change.get("index") == worker
    ]
    assert len(runners) == 1


@pytest.mark.timeout(600)
def test_terraform_gives_workers_the_variables_they_read() -> None:
    """Every required variable is in the plan, or comes from a secret."""
    plan = json.dumps(terraform.planned())
    required = [name for name, field in variables().items() if field.is_required()]
    assert [name for name in required if name not in plan and name not in FROM_SECRETS] == []
