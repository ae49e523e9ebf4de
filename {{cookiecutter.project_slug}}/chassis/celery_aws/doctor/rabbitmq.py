"""Compares an environment on RabbitMQ with the contract, with advice for each difference.

The checks change nothing and send no messages.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from amqp import Message
from amqp.exceptions import AccessRefused, AMQPError, PreconditionFailed
from kombu import Queue as Declared
from kombu.transport.native_delayed_delivery import CELERY_DELAYED_DELIVERY_EXCHANGE

from ..brokers.rabbitmq import DEAD_LETTER_EXCHANGE, TASK_EXCHANGE, dead_letter_queue, markers, work_queue
from ..contract import Queue
from ..durations import counted
from ..environment.rabbitmq import BrokerError, Environment
from ..environment.rabbitmq import explanation as explained
from ..errors import SettingsError
from ..health import NotAliveError, check
from ..pausing import rabbitmq as pausing
from ..queues.rabbitmq import DELAYED, count
from .findings import Finding, clock, is_paused, orphan, result_findings, unknown, well, wrong

CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "D101": "the environment variables of the broker are valid",
        "D102": "the broker is reachable, its certificate is valid, and it accepts user, password and virtual host",
        "D103": "the version of the broker is 4.2 or newer; older versions are accepted on localhost",
        "D104": "the clock is correct",
        "D105": "the management API responds",
        "D106": "no node has a memory or disk alarm, which blocks all producers",
        "D201": "the queue exists, and is a quorum queue",
        "D202": "its dead-letter queue exists, and is a quorum queue",
        "D203": "the consumer timeout is that of the contract",
        "D204": "the retention is that of the contract",
        "D205": "the queue is bound to the task exchange and to delayed delivery",
        "D206": "the dead-letter queue and the delivery limit are those of the contract",
        "D207": "a full queue rejects new messages instead of dropping old ones",
        "D210": "dead-letter queue: the retention is that of the contract",
        "D211": "dead-letter queue: it drops no messages, also not after many peeks",
        "D212": "dead-letter queue: it is bound to the dead-letter exchange",
        "D213": "every queue in the virtual host is in the contract, or is an internal queue of Celery",
        "D301": "the user has the permissions of the role",
        "D401": "the result backend is reachable",
        "D402": "results expire",
        "D501": "the queue has a worker",
    }
)
"""All checks in their order, by code. The codes D2xx have the same meaning for every broker."""

OLDEST_VERSION = (4, 2)

ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "D203": ("x-consumer-timeout",),
        "D204": ("x-message-ttl",),
        "D206": (
            "x-dead-letter-exchange",
            "x-dead-letter-routing-key",
            "x-dead-letter-strategy",
            "x-delivery-limit",
        ),
        "D207": ("x-overflow",),
    }
)
"""The arguments of a queue that each check compares."""

DEAD_ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"D210": ("x-message-ttl",), "D211": ("x-overflow", "x-delivery-limit")}
)

COUNTS: Mapping[str, str] = MappingProxyType({"messages_ready": "waiting", "messages_unacknowledged": "in flight"})
"""Display names of the message counts of a queue."""

DECLARED_BY_WORKERS = "start a worker or a producer, which declares missing queues and bindings"

RECREATE = (
    "RabbitMQ cannot change it: stop producers and workers, wait until `queues` shows the queue empty, nothing in "
    "flight and nothing delayed, delete it in the management console, and start a worker, which declares it; or "
    "change contract.json"
)
"""How to fix a queue that differs from the contract. RabbitMQ cannot delete a quorum queue only if it is empty.

https://github.com/rabbitmq/rabbitmq-server/issues/10543
"""

RECREATE_DEAD = (
    "RabbitMQ cannot change it: stop the workers, run `dlq export --remove`, delete it in the management console, "
    "start a worker, which declares it, and run `dlq import`; or change contract.json"
)

NO_SUCH_USER = "doctor-is-nobody"
"""Invalid value for arguments and user ids."""

Probe = Callable[[Any, str], object]


def _configure(channel: Any, name: str) -> object:
    # The value of the argument is invalid, so RabbitMQ refuses the request even with the permission.
    return channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-message-ttl": NO_SUCH_USER})


def _read(channel: Any, name: str) -> object:
    # The value of the argument is invalid, so RabbitMQ refuses the request even with the permission.
    return channel.basic_consume(name, consumer_tag=NO_SUCH_USER, arguments={"x-priority": NO_SUCH_USER})


def _write(channel: Any, name: str) -> object:
    # The message has the id of another user, so RabbitMQ refuses it even with the permission.
    channel._basic_publish(Message(b"", user_id=NO_SUCH_USER), name, NO_SUCH_USER)
    return channel.exchange_declare(name, "topic", passive=True)  # Waits for the response.


PROBES: Mapping[str, Probe] = MappingProxyType({"configure": _configure, "read": _read, "write": _write})
"""A request per permission that RabbitMQ always refuses; the error tells whether the user has the permission."""

ROLES: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "operator": (("read", "{dead}"), ("write", TASK_EXCHANGE.name), ("write", DEAD_LETTER_EXCHANGE.name)),
        "worker": (
            ("configure", "{queue}"),
            ("read", "{queue}"),
            ("write", TASK_EXCHANGE.name),
            ("write", DEAD_LETTER_EXCHANGE.name),
            ("write", CELERY_DELAYED_DELIVERY_EXCHANGE),
        ),
        "producer": (
            ("configure", "{queue}"),
            ("write", TASK_EXCHANGE.name),
            ("write", CELERY_DELAYED_DELIVERY_EXCHANGE),
        ),
    }
)
"""The permissions that each role needs, for every queue."""


def findings(env: Environment, role: str) -> Iterator[Finding]:
    """Run all checks.

    Args:
        env: the environment.
        role: the role whose permissions are checked; one of `ROLES`.
    """
    try:
        host = urlsplit(env.variables.broker_url).hostname
    except SettingsError as error:
        yield unknown("D101", "variables", " ".join(str(error).split()), "set them to the values of the service")
        return  # All other checks would fail for the same reason.
    yield well("D101", "variables", f"broker {host}, virtual host {env.virtual_host}")
    try:
        connection = env.connect()
    except BrokerError as error:
        yield wrong("D102", "broker", str(error), "correct the variables, or check the network")
        return
    encrypted = env.variables.broker_url.startswith("amqps:")
    yield well("D102", "broker", "valid certificate" if encrypted else "on this machine, not encrypted")
    with connection:
        yield _version(env, str(connection.server_properties.get("version", "")))
        yield from _management(env)
        yield from _queues(env, connection, role)
    yield from result_findings(env.contract, env.client)


def _version(env: Environment, version: str) -> Finding:
    """D103."""
    known = re.match(r"([0-9]+)\.([0-9]+)", version)
    if known and (int(known[1]), int(known[2])) >= OLDEST_VERSION:
        return well("D103", "broker", version)
    if env.variables.broker_url.startswith("amqp:"):
        return well("D103", "broker", f"{version}, older than 4.2, on this machine")
    advice = "upgrade the broker: consumer timeouts per queue require version 4.2"
    return wrong("D103", "broker", f"version {version or 'unknown'}", advice)


def _management(env: Environment) -> Iterator[Finding]:
    """D104 to D106."""
    try:
        nodes, date = env.ask_with_date("nodes")
    except BrokerError as error:
        yield unknown("D105", "management", str(error), "correct BROKER_MANAGEMENT_URL, or tag the user `monitoring`")
        return
    if date:
        yield clock(date, time.time(), "the broker")
    yield well("D105", "management", "responds")
    for node in nodes:
        short = [what for what in ("mem_alarm", "disk_free_alarm") if node.get(what)]
        if short or not node.get("running"):
            says = f"{node['name']}: {', '.join(short) or 'not running'}"
            advice = "producers are blocked until there is room: drain queues, or use a larger instance"
            yield wrong("D106", "nodes", says, advice)
        else:
            yield well("D106", "nodes", node["name"])


def _queues(env: Environment, connection: Any, role: str) -> Iterator[Finding]:
    """D201 to D301, and D501."""
    try:
        live = {each["name"]: each for each in env.ask("queues", env.virtual_host)}
        bindings = env.ask("bindings", env.virtual_host)
    except BrokerError as error:
        yield unknown("D201", "queues", str(error), "use a user with access to the management API")
        return
    paused = pausing.among(env, live)
    bound = {(each["source"], each["destination"], each["routing_key"]) for each in bindings}
    for queue in env.contract.queues:
        name, dead = env.name(queue), env.name(queue, dead=True)
        wanted, dead_wanted = work_queue(queue.name, env.contract), dead_letter_queue(queue.name, env.contract)
        both = [
            _exists("D201", queue, name, live.get(name), RECREATE),
            _exists("D202", queue, dead, live.get(dead), RECREATE_DEAD),
        ]
        yield from both
        if both[0].is_well:
            yield from _arguments(queue, ARGUMENTS, wanted, live[name], RECREATE)
            bindings_wanted = [(TASK_EXCHANGE.name, name, name), (TASK_EXCHANGE.name, name, f"#.{name}")]
            bindings_wanted.append((CELERY_DELAYED_DELIVERY_EXCHANGE, TASK_EXCHANGE.name, f"#.{name}"))
            yield _bound("D205", queue, bindings_wanted, bound)
        if both[1].is_well:
            yield from _arguments(queue, DEAD_ARGUMENTS, dead_wanted, live[dead], RECREATE_DEAD)
            yield _bound("D212", queue, [(DEAD_LETTER_EXCHANGE.name, dead, queue.name)], bound)
        if all(finding.is_well for finding in both):
            yield _permissions(connection, queue, role, name, dead)
            pause = paused.get(queue.name)
            yield is_paused(queue.name, pause) if pause else _worker(env, queue, connection, name)
    yield from _orphans(env, live)


def _exists(code: str, queue: Queue, name: str, live: Mapping[str, Any] | None, recreate: str) -> Finding:
    if live is None:
        return wrong(code, queue.name, f"there is no queue {name}", DECLARED_BY_WORKERS)
    if live.get("type") != "quorum" or not live.get("durable"):
        return wrong(code, queue.name, f"{name} is a {live.get('type')} queue", recreate)
    return well(code, queue.name, f"{name}, quorum")


def _arguments(
    queue: Queue, checks: Mapping[str, tuple[str, ...]], wanted: Declared, live: Mapping[str, Any], recreate: str
) -> Iterator[Finding]:
    """Compare the arguments of a queue with its declaration."""
    for code, names in checks.items():
        found = {name: live.get("arguments", {}).get(name) for name in names}
        due = {name: (wanted.queue_arguments or {}).get(name) for name in names}
        different = [f"{name} is {found[name]}, not {due[name]}" for name in names if found[name] != due[name]]
        if different:
            yield wrong(code, queue.name, "; ".join(different), recreate)
        else:
            yield well(code, queue.name, ", ".join(f"{name} {found[name]}" for name in names))


def _bound(code: str, queue: Queue, wanted: list[tuple[str, str, str]], bound: set[tuple[str, str, str]]) -> Finding:
    missing = [
        f"{source} to {destination} by {key}"
        for source, destination, key in wanted
        if (source, destination, key) not in bound
    ]
    if missing:
        return wrong(code, queue.name, f"missing bindings: {', '.join(missing)}", DECLARED_BY_WORKERS)
    return well(code, queue.name, f"bound to {', '.join(dict.fromkeys(source for source, _, _ in wanted))}")


def _permissions(connection: Any, queue: Queue, role: str, name: str, dead: str) -> Finding:
    """D301: probe the permissions with requests that RabbitMQ always refuses."""
    wanted = [(permission, of.format(queue=name, dead=dead)) for permission, of in ROLES[role]]
    missing = []
    for permission, resource in wanted:
        try:
            PROBES[permission](connection.channel(), resource)
        except AccessRefused:
            missing.append(f"{permission} {resource}")
        except PreconditionFailed:
            pass
        except AMQPError as error:
            return unknown("D301", queue.name, explained(error), "try again")
    if missing:
        return wrong("D301", queue.name, f"{role} may not {', '.join(missing)}", "grant the user these permissions")
    return well("D301", queue.name, f"{role} may {', '.join(' '.join(each) for each in wanted)}")


def _orphans(env: Environment, live: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """D213: queues that were removed from the contract or renamed, but not deleted."""
    known = {env.name(queue, dead=dead) for queue in env.contract.queues for dead in (False, True)}
    orphans = [
        orphan(name, name, {state: count(found, field) for field, state in COUNTS.items()})
        for name, found in sorted(live.items())
        if name not in known and not _is_internal(found)
    ]
    yield from orphans or [well("D213", "queues", "all are in the contract")]


def _is_internal(queue: Mapping[str, Any]) -> bool:
    """Return whether a queue is for delayed messages, events or remote control of Celery, or marks a paused one."""
    is_temporary = queue.get("auto_delete") or queue.get("exclusive") or "x-expires" in queue.get("arguments", {})
    return bool(is_temporary) or queue["name"].startswith(DELAYED) or queue["name"].endswith(markers.SUFFIX)


def _worker(env: Environment, queue: Queue, connection: Any, name: str) -> Finding:
    """D501: the queue has consumers, or a worker on this machine has a liveness file."""
    worker = env.contract.worker_of(queue)
    try:
        return well("D501", queue.name, f"on this machine, {check(env.contract, worker.name):.0f} s ago")
    except NotAliveError:
        pass
    _, waiting, consumers = connection.channel().queue_declare(name, passive=True)
    if consumers:
        return well("D501", queue.name, counted(consumers, "worker"))
    if not worker.min and not waiting:
        return well("D501", queue.name, "scaled to zero, no messages")
    advice = "check the workers' logs, and the desired number of workers"
    return wrong("D501", queue.name, f"no workers; messages waiting: {waiting}", advice)
