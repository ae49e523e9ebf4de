"""The table of the command `queues`."""

from __future__ import annotations

from ...durations import age
from ...queues.sqs import Depth
from ...terminal import Fitting, table
from ..cells import count, named

HELP = """
OLDEST is from CloudWatch, and some minutes old. Exits with 1 if a queue is paused or missing, if a dead-letter
queue is not empty, or if a message has waited longer than acceptable_latency_seconds.
"""


def rendered(found: list[Depth], title: str) -> Fitting:
    """Return a table of the queues."""
    made = table(title=title, title_justify="left", title_style="")
    made.add_column("QUEUE", overflow="fold")
    for heading in ("WAITING", "IN FLIGHT", "DELAYED", "OLDEST", "ACCEPTED", "DEAD"):
        made.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        oldest = "-" if each.oldest_seconds is None else age(each.oldest_seconds)
        made.add_row(
            named(each.queue, each.paused),
            count(each.waiting, missing="missing"),
            count(each.in_flight),
            count(each.delayed),
            f"[red]{oldest}[/]" if each.is_late else oldest,
            age(each.acceptable_latency_seconds),
            count(each.dead, is_wrong=bool(each.dead), missing="missing"),
        )
    return Fitting(made)
