"""Compares the live world with the contract, and says what to do about each difference.

It changes nothing and sends no message.
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

from ..brokers.rabbitmq import DEAD_LETTERS, TASKS, dead_letter_queue, work_queue
from ..contract import Queue
from ..environment.rabbitmq import BrokerError, Environment
from ..environment.rabbitmq import explanation as explained
from ..errors import SettingsError
from ..health import NotAliveError, check
from ..queues.rabbitmq import DELAYED, count
from .findings import Finding, clock, orphan, result_findings, unknown, well, wrong

CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "D101": "the variables that lead to the broker fit",
        "D102": "the broker answers, with a certificate that is its host's, and takes name, password and virtual host",
        "D103": "the broker is of a version that was meant: 4.2 or newer; an older one is for this machine alone",
        "D104": "the clock is right",
        "D105": "the management API answers",
        "D106": "no node is short of memory or disk, which would keep all senders waiting",
        "D201": "the queue is there, and is a quorum queue",
        "D202": "its dead-letter queue is there, and is a quorum queue",
        "D203": "consumer timeout as in the contract",
        "D204": "retention as in the contract",
        "D205": "gets what is sent to it, also what was delayed",
        "D206": "dead-lettered into its own queue, after as many deliveries as in the contract",
        "D207": "refuses what it cannot keep, instead of dropping something else",
        "D210": "dead-letter queue: retention as in the contract",
        "D211": "dead-letter queue: drops nothing, also if it is looked at often",
        "D212": "dead-letter queue: takes dead letters of the queue",
        "D213": "every queue in the virtual host is in the contract, or Celery's own",
        "D301": "the user may do what it must",
        "D401": "the result store can be reached",
        "D402": "results expire",
        "D501": "a worker is there",
    }
)
"""Every check by its code, in the order they are made; what a code of the 200s means does not depend on the broker."""

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
"""Which arguments of a queue each check looks at."""

DEAD_ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"D210": ("x-message-ttl",), "D211": ("x-overflow", "x-delivery-limit")}
)

COUNTS: Mapping[str, str] = MappingProxyType({"messages_ready": "waiting", "messages_unacknowledged": "in flight"})
"""Which counts of a queue tell how many messages it holds, and what those are called here."""

DECLARED_BY_WORKERS = "start a worker or a sender: whoever connects declares what is missing"

ANEW = (
    "RabbitMQ cannot change it: stop senders and workers, wait until `queues` shows the queue empty, nothing in flight "
    "and nothing delayed, delete it in the management console, and start a worker, which declares it; or change "
    "contract.json if the world is right"
)
"""What to do about a queue that is not as the contract says: a quorum queue cannot be deleted only if it is empty.

https://github.com/rabbitmq/rabbitmq-server/issues/10543
"""

DEAD_ANEW = (
    "RabbitMQ cannot change it: stop the workers, `dlq export --remove` what is in it, delete it in the management "
    "console, start a worker, which declares it, and `dlq import`; or change contract.json if the world is right"
)

NOBODY = "doctor-is-nobody"

Probe = Callable[[Any, str], object]


def _configure(channel: Any, name: str) -> object:
    # The argument has no such values, so RabbitMQ refuses it if the user may declare.
    return channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-message-ttl": NOBODY})


def _read(channel: Any, name: str) -> object:
    # The argument has no such values, so RabbitMQ refuses it if the user may read.
    return channel.basic_consume(name, consumer_tag=NOBODY, arguments={"x-priority": NOBODY})


def _write(channel: Any, name: str) -> object:
    # It says to be of another user, so RabbitMQ refuses it if the user may write.
    channel._basic_publish(Message(b"", user_id=NOBODY), name, NOBODY)
    return channel.exchange_declare(name, "topic", passive=True)  # Which waits until that is refused.


PROBES: Mapping[str, Probe] = MappingProxyType({"configure": _configure, "read": _read, "write": _write})
"""Requests that RabbitMQ refuses in any case: for what they ask if the user may make them, or else for the user."""

ROLES: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "operator": (("read", "{dead}"), ("write", TASKS.name), ("write", DEAD_LETTERS.name)),
        "worker": (
            ("configure", "{queue}"),
            ("read", "{queue}"),
            ("write", TASKS.name),
            ("write", DEAD_LETTERS.name),
            ("write", CELERY_DELAYED_DELIVERY_EXCHANGE),
        ),
        "producer": (("configure", "{queue}"), ("write", TASKS.name), ("write", CELERY_DELAYED_DELIVERY_EXCHANGE)),
    }
)
"""What each role must be allowed, of every queue."""


def findings(here: Environment, role: str) -> Iterator[Finding]:
    """Make all checks, one after the other.

    Args:
        here: the environment.
        role: whose name and password these are: one of `ROLES`.
    """
    try:
        host = urlsplit(here.variables.broker_url).hostname
    except SettingsError as error:
        yield unknown("D101", "variables", " ".join(str(error).split()), "set them as the service does")
        return  # Every other check would say the same.
    yield well("D101", "variables", f"to {host}, virtual host {here.virtual_host}")
    try:
        connection = here.connect()
    except BrokerError as error:
        yield wrong("D102", "broker", str(error), "correct the variables, or look at the network")
        return
    encrypted = here.variables.broker_url.startswith("amqps:")
    yield well("D102", "broker", "certificate and host name fit" if encrypted else "on this machine, not encrypted")
    with connection:
        yield _version(here, str(connection.server_properties.get("version", "")))
        yield from _management(here)
        yield from _queues(here, connection, role)
    yield from result_findings(here.contract, here.client)


def _version(here: Environment, version: str) -> Finding:
    """D103."""
    known = re.match(r"([0-9]+)\.([0-9]+)", version)
    if known and (int(known[1]), int(known[2])) >= OLDEST_VERSION:
        return well("D103", "broker", version)
    if here.variables.broker_url.startswith("amqp:"):
        return well("D103", "broker", f"{version}, old, and on this machine")
    advice = "upgrade the broker: from 4.2 on, workers' consumer timeouts are the queues' own"
    return wrong("D103", "broker", f"version {version or 'unknown'}", advice)


def _management(here: Environment) -> Iterator[Finding]:
    """D104 to D106."""
    try:
        nodes, date = here.ask_with_date("nodes")
    except BrokerError as error:
        yield unknown("D105", "management", str(error), "correct BROKER_MANAGEMENT_URL, or give the user `monitoring`")
        return
    if date:
        yield clock(date, time.time(), "the broker")
    yield well("D105", "management", "answers")
    for node in nodes:
        short = [what for what in ("mem_alarm", "disk_free_alarm") if node.get(what)]
        if short or not node.get("running"):
            says = f"{node['name']}: {', '.join(short) or 'does not run'}"
            advice = "senders wait until there is room: empty queues, or take a larger instance"
            yield wrong("D106", "nodes", says, advice)
        else:
            yield well("D106", "nodes", node["name"])


def _queues(here: Environment, connection: Any, role: str) -> Iterator[Finding]:
    """D201 to D301, and D501."""
    try:
        live = {each["name"]: each for each in here.ask("queues", here.virtual_host)}
        bindings = here.ask("bindings", here.virtual_host)
    except BrokerError as error:
        yield unknown("D201", "queues", str(error), "look with a user that may ask the management API")
        return
    bound = {(each["source"], each["destination"], each["routing_key"]) for each in bindings}
    for queue in here.contract.queues:
        name, dead = here.name(queue), here.name(queue, dead=True)
        wanted, dead_wanted = work_queue(queue.name, here.contract), dead_letter_queue(queue.name, here.contract)
        both = [
            _there("D201", queue, name, live.get(name), ANEW),
            _there("D202", queue, dead, live.get(dead), DEAD_ANEW),
        ]
        yield from both
        if both[0].is_well:
            yield from _arguments(queue, ARGUMENTS, wanted, live[name], ANEW)
            ways = [(TASKS.name, name, name), (TASKS.name, name, f"#.{name}")]
            ways.append((CELERY_DELAYED_DELIVERY_EXCHANGE, TASKS.name, f"#.{name}"))
            yield _bound("D205", queue, ways, bound)
        if both[1].is_well:
            yield from _arguments(queue, DEAD_ARGUMENTS, dead_wanted, live[dead], DEAD_ANEW)
            yield _bound("D212", queue, [(DEAD_LETTERS.name, dead, queue.name)], bound)
        if all(finding.is_well for finding in both):
            yield _rights(connection, queue, role, name, dead)
            yield _worker(here, queue, connection, name)
    yield from _orphans(here, live)


def _there(code: str, queue: Queue, name: str, live: Mapping[str, Any] | None, anew: str) -> Finding:
    if live is None:
        return wrong(code, queue.name, f"there is no queue {name}", DECLARED_BY_WORKERS)
    if live.get("type") != "quorum" or not live.get("durable"):
        return wrong(code, queue.name, f"{name} is a {live.get('type')} queue", anew)
    return well(code, queue.name, f"{name}, quorum")


def _arguments(
    queue: Queue, checks: Mapping[str, tuple[str, ...]], wanted: Declared, live: Mapping[str, Any], anew: str
) -> Iterator[Finding]:
    """Compare arguments of a queue with what would be declared."""
    for code, names in checks.items():
        found = {name: live.get("arguments", {}).get(name) for name in names}
        due = {name: (wanted.queue_arguments or {}).get(name) for name in names}
        different = [f"{name} is {found[name]}, not {due[name]}" for name in names if found[name] != due[name]]
        if different:
            yield wrong(code, queue.name, "; ".join(different), anew)
        else:
            yield well(code, queue.name, ", ".join(f"{name} {found[name]}" for name in names))


def _bound(code: str, queue: Queue, ways: list[tuple[str, str, str]], bound: set[tuple[str, str, str]]) -> Finding:
    missing = [
        f"{source} to {destination} by {key}"
        for source, destination, key in ways
        if (source, destination, key) not in bound
    ]
    if missing:
        return wrong(code, queue.name, f"there is no binding of {', '.join(missing)}", DECLARED_BY_WORKERS)
    return well(code, queue.name, f"bound to {', '.join(dict.fromkeys(source for source, _, _ in ways))}")


def _rights(connection: Any, queue: Queue, role: str, name: str, dead: str) -> Finding:
    """D301: requests that RabbitMQ would have to refuse anyway tell whether the user may make them."""
    wanted = [(right, of.format(queue=name, dead=dead)) for right, of in ROLES[role]]
    missing = []
    for right, resource in wanted:
        try:
            PROBES[right](connection.channel(), resource)
        except AccessRefused:
            missing.append(f"{right} {resource}")
        except PreconditionFailed:
            pass
        except AMQPError as error:
            return unknown("D301", queue.name, explained(error), "look again")
    if missing:
        return wrong("D301", queue.name, f"{role} may not {', '.join(missing)}", "give the user these permissions")
    return well("D301", queue.name, f"{role} may {', '.join(' '.join(each) for each in wanted)}")


def _orphans(here: Environment, live: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """D213: queues that were removed from the contract, or renamed there, but not deleted."""
    known = {here.name(queue, dead=dead) for queue in here.contract.queues for dead in (False, True)}
    orphans = [
        orphan(name, name, {state: count(found, field) for field, state in COUNTS.items()})
        for name, found in sorted(live.items())
        if name not in known and not _is_celerys(found)
    ]
    yield from orphans or [well("D213", "queues", "all of them are in the contract")]


def _is_celerys(queue: Mapping[str, Any]) -> bool:
    """Return whether a queue is for countdowns, or for events and remote control, which RabbitMQ deletes by itself."""
    deletes_itself = queue.get("auto_delete") or queue.get("exclusive") or "x-expires" in queue.get("arguments", {})
    return bool(deletes_itself) or queue["name"].startswith(DELAYED)


def _worker(here: Environment, queue: Queue, connection: Any, name: str) -> Finding:
    """D501: a worker is a consumer of its queue; one on this machine leaves a file, too."""
    try:
        return well("D501", queue.name, f"on this machine, {check(here.contract, queue):.0f} s ago")
    except NotAliveError:
        pass
    _, waiting, consumers = connection.channel().queue_declare(name, passive=True)
    if consumers:
        return well("D501", queue.name, f"{consumers} workers")
    if not queue.workers_min and not waiting:
        return well("D501", queue.name, "nothing waits, and then there need be none")
    advice = "look at the workers' logs, and whether any are to run"
    return wrong("D501", queue.name, f"no worker, and {waiting} messages wait", advice)
