"""The Celery application, with the reason for every setting.

A `#name` after a reason is the anchor of the setting in
https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

from __future__ import annotations

import importlib
from typing import Any

from pydantic_settings import BaseSettings

from . import brokers, compute, credentials, results, service
from .checks import CheckWorker
from .contract import Contract
from .liveness import Liveness
from .sending import Service, SettingsT, route_by_module
from .settings import read_settings
from .storing import add_store_outcome


def create_app(package: str, settings_class: type[SettingsT]) -> Service[SettingsT]:
    """Build the application of a service.

    Args:
        package: the service's package, which contains `tasks/`; `__package__` in its `celery.py`.
        settings_class: the service's settings; the instance becomes `settings` of the application.

    Raises:
        ContractError: the contract breaks rules.
        SettingsError: environment variables are missing or invalid; all of them are listed.
    """
    importlib.import_module(f"{__package__}.logs")  # How workers log; a client leaves that to its application.
    service.use(package)
    return build(service.contract(), settings_class)


def variables(contract: Contract) -> tuple[type[BaseSettings], ...]:
    """Return the settings classes of the broker, the result backend and the credentials, in this order."""
    options = brokers.chosen(contract).variables(contract), results.chosen(contract).Variables
    return (*options, *credentials.variables(contract))


def build(
    contract: Contract, settings_class: type[SettingsT], *, prefix: str = "", **options: Any
) -> Service[SettingsT]:
    """Build the application from a contract and the environment variables.

    Args:
        contract: the contract.
        settings_class: the settings; the instance becomes `settings` of the application.
        prefix: prefix of environment variables that take precedence over those without; empty for none.
        options: options of `celery.Celery`.

    Raises:
        SettingsError: environment variables are missing or invalid; all of them are listed.
    """
    broker, backend = brokers.chosen(contract), results.chosen(contract)
    settings, (broker_variables, result_variables, *_) = read_settings(
        settings_class, *variables(contract), prefix=prefix
    )
    app = Service(contract, settings, **options)
    app.steps["worker"].add(CheckWorker)
    app.steps["consumer"].add(Liveness)
    app.set_own(broker.celery_settings(contract, broker_variables, settings.environment))
    app.set_own(backend.celery_settings(contract, result_variables))
    app.loader.override_backends = dict(backend.BACKENDS)
    app.set_own(
        # Workers, and producers that send by name, know the tasks of every queue. #include
        include=service.task_modules(contract),
        # The module of a task determines its queue. #task-routes
        task_routes=(lambda *args, **kwargs: route_by_module(app, *args, **kwargs),),
        # JSON only: with pickle, anyone who may send a message could run code in the workers.
        # #accept-content
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # Times in messages and logs are UTC on every machine. #enable-utc
        enable_utc=True,
        timezone="UTC",
        # Delete a message after its task and not before it, so that a killed worker loses none.
        # #task-acks-late
        task_acks_late=True,
        # The same if only the task process dies, for example if it is OOM-killed.
        # #task-reject-on-worker-lost
        task_reject_on_worker_lost=True,
        # The message of a task that raises or exceeds its hard limit is redelivered, and finally
        # dead-lettered. By default Celery deletes it, and the dead-letter queue stays empty.
        # #task-acks-on-failure #task-acks-on-timeout
        task_acks_on_failure=False,
        task_acks_on_timeout=False,
        # A message whose body cannot be decoded is redelivered as well; Celery's consumer deletes it.
        # #worker-consumer
        worker_consumer=f"{__package__}.consumer:Consumer",
        # Processes: a task in a thread or greenlet cannot be killed at its hard limit. #worker-pool
        worker_pool=f"{__package__}.pool:TaskPool",
        # A prefetched message is invisible to idle workers, and its visibility timeout has begun;
        # `worker_arguments` sets the worker's own value. #worker-prefetch-multiplier
        worker_prefetch_multiplier=1,
        # A process may start slowly on a busy machine; by default it is killed after 4 seconds.
        # #worker-proc-alive-timeout
        worker_proc_alive_timeout=60,
        # Sending fails after about a second, so that a web request does not hang.
        # #task-publish-retry-policy
        task_publish_retry_policy={
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
    )
    app.steps["consumer"].update((*compute.steps(contract), *broker.steps(contract)))
    app.on_after_finalize.connect(_add_tasks, weak=False)
    return app


def _add_tasks(sender: Any, **rest: Any) -> None:
    add_store_outcome(sender)
