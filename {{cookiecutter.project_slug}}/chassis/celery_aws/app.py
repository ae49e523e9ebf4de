"""The Celery application: every setting stands beside the reason for it.

A `#name` behind a reason is the place in
https://docs.celeryq.dev/en/stable/userguide/configuration.html that documents the setting.
"""

from __future__ import annotations

from typing import Any

from pydantic_settings import BaseSettings

from . import brokers, compute, credentials, results, service
from .checks import CheckWorker
from .contract import Contract
from .liveness import Liveness
from .sending import Own, Service, route_by_module
from .settings import read_settings
from .storing import add_store_outcome


def create_app(package: str, kind: type[Own]) -> Service[Own]:
    """Build the application of a service.

    Args:
        package: its package, which has `tasks/`; `__package__` in its `celery.py`.
        kind: its class of settings, which is read from the environment into `settings` of the application.

    Raises:
        ContractError: the contract breaks rules.
        SettingsError: environment variables are missing or wrong; all of them are listed.
    """
    service.use(package)
    return build(service.contract(), kind)


def variables(contract: Contract) -> tuple[type[BaseSettings], ...]:
    """Return the environment variables of broker, result backend and credentials, in this order."""
    options = brokers.chosen(contract).Variables, results.chosen(contract).Variables
    return (*options, *credentials.variables(contract))


def build(contract: Contract, kind: type[Own]) -> Service[Own]:
    """Build the application that a contract describes, in the environment that the variables describe."""
    broker, backend = brokers.chosen(contract), results.chosen(contract)
    settings, (of_broker, of_results, *_) = read_settings(kind, *variables(contract))
    app = Service(contract, settings)
    app.steps["worker"].add(CheckWorker)
    app.steps["consumer"].add(Liveness)
    app.conf.update(broker.celery_settings(contract, of_broker, settings.environment))
    app.conf.update(backend.celery_settings(contract, of_results))
    app.loader.override_backends = dict(backend.BACKENDS)
    app.conf.update(
        # A worker, or a producer that sends by name, knows the tasks of every queue. #include
        include=service.task_modules(contract),
        # The module a task is in says which queue it goes to. #task-routes
        task_routes=(lambda *args, **kwargs: route_by_module(app, *args, **kwargs),),
        # JSON only: pickle would let whoever may send a message run code in the workers.
        # #accept-content
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # Times in messages and logs mean the same everywhere. #enable-utc
        enable_utc=True,
        timezone="UTC",
        # Delete a message after its task instead of before it, so that a killed worker loses none.
        # #task-acks-late
        task_acks_late=True,
        # The same where only the process of the task dies, of too much memory for example.
        # #task-reject-on-worker-lost
        task_reject_on_worker_lost=True,
        # A task that raises or runs out of time stays in the queue, is delivered again, and goes to
        # the dead-letter queue in the end. By default Celery deletes it, and that queue stays empty.
        # #task-acks-on-failure #task-acks-on-timeout
        task_acks_on_failure=False,
        task_acks_on_timeout=False,
        # A message whose body cannot be read stays as well; Celery's own consumer deletes it.
        # #worker-consumer
        worker_consumer=f"{__package__}.consumer:Consumer",
        # Processes: a task in a thread or greenlet cannot be killed at its hard limit. #worker-pool
        worker_pool=f"{__package__}.pool:TaskPool",
        # What waits inside a worker is no other's to do, and its time there is limited; `worker_arguments`
        # has the queue's own number. #worker-prefetch-multiplier
        worker_prefetch_multiplier=1,
        # A process that leaks memory is replaced in time, between two tasks.
        # #worker-max-tasks-per-child
        worker_max_tasks_per_child=1_000,
        # A process that is slow to start, on a machine that is busy, is not killed for it; by default it
        # has 4 seconds. #worker-proc-alive-timeout
        worker_proc_alive_timeout=60,
        # Sending fails after about a second instead of being tried for ever in a web request.
        # #task-publish-retry-policy
        task_publish_retry_policy={
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
    )
    app.steps["consumer"].update((*compute.steps(contract), *broker.steps()))
    app.on_after_finalize.connect(_add_tasks, weak=False)
    return app


def _add_tasks(sender: Any, **rest: Any) -> None:
    add_store_outcome(sender)
