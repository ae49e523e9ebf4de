"""How full the queues are, as the broker's management API tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from ..contract import Queue
from ..environment.rabbitmq import BrokerError, Environment
from ..terminal import plain, table

HELP = """
The counts are some seconds old. A countdown waits in queues of Celery's for all of them, so that what is DELAYED is
known in total only. Exits with 1 if a dead-letter queue is not empty, or messages wait and no worker is there.
"""

DELAYED = "celery_delayed_"
"""What the names of Celery's queues for countdowns begin with."""


@dataclass(frozen=True)
class Depth:
    """How full a queue is."""

    queue: str
    waiting: int
    in_flight: int
    workers: int
    """Who takes messages from it."""
    dead: int
    delayed_of_all: int
    """Messages that are not due yet, of all queues together; failed ones that wait for their next delivery as well."""

    @property
    def is_well(self) -> bool:
        """Whether nobody need look."""
        return not self.dead and not (self.waiting and not self.workers)


def depths(place: Environment) -> list[Depth]:
    """Return how full every queue is.

    Raises:
        BrokerError: the broker does not tell, or has no such queue.
    """
    found = {each["name"]: each for each in place.ask("queues", place.virtual_host)}
    delayed = sum(count(each, "messages") for name, each in found.items() if name.startswith(DELAYED))
    return [_depth(place, queue, found, delayed) for queue in place.contract.queues]


def _depth(place: Environment, queue: Queue, found: dict[str, Any], delayed: int) -> Depth:
    name, dead = place.name(queue), place.name(queue, dead=True)
    if missing := {name, dead} - found.keys():
        raise BrokerError(
            f"there is no queue {min(missing)} in the virtual host {place.virtual_host}. Is BROKER_URL right, and has "
            f"a worker or a sender ever connected, which declares the queues?"
        )
    live = found[name]
    return Depth(
        queue.name,
        count(live, "messages_ready"),
        count(live, "messages_unacknowledged"),
        count(live, "consumers"),
        count(found[dead], "messages"),
        delayed,
    )


def count(queue: Mapping[str, Any], what: str) -> int:
    """Return one of the counts that the management API gives of a queue."""
    return int(queue.get(what) or 0)  # A queue that has just been made has no counts yet.


def drawn(found: list[Depth], title: str) -> Table:
    """Return a table of the queues."""
    delayed = f"{found[0].delayed_of_all:,} messages of all queues are delayed" if found else ""
    made = table(title=title, title_justify="left", title_style="", caption=delayed, caption_justify="left")
    made.caption_style = ""
    made.add_column("QUEUE", overflow="fold")
    for heading in ("WAITING", "IN FLIGHT", "WORKERS", "DEAD"):
        made.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        made.add_row(
            plain(each.queue),
            f"[red]{each.waiting:,}[/]" if each.waiting and not each.workers else f"{each.waiting:,}",
            f"{each.in_flight:,}",
            f"{each.workers:,}",
            f"[red]{each.dead:,}[/]" if each.dead else "0",
        )
    return made
