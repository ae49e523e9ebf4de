"""The table of the command `queues`."""

from __future__ import annotations

from ...durations import counted
from ...queues.rabbitmq import Depth
from ...terminal import Fitting, table
from ..cells import count, named

HELP = """
The counts are some seconds old. Delayed messages are in shared queues of Celery, so only their total is known.
Exits with 1 if a queue is paused or missing, if a dead-letter queue is not empty, or if messages wait without
consumers.
"""


def rendered(found: list[Depth], title: str) -> Fitting:
    """Return a table of the queues."""
    delayed = f"{counted(f'{found[0].delayed_of_all:,}', 'delayed message')} in all queues" if found else ""
    made = table(title=title, title_justify="left", title_style="", caption=delayed, caption_justify="left")
    made.caption_style = ""
    made.add_column("QUEUE", overflow="fold")
    for heading in ("WAITING", "IN FLIGHT", "WORKERS", "DEAD"):
        made.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        made.add_row(
            named(each.queue, each.paused),
            count(each.waiting, is_wrong=bool(each.waiting and not each.workers), missing="missing"),
            count(each.in_flight),
            count(each.workers),
            count(each.dead, is_wrong=bool(each.dead), missing="missing"),
        )
    return Fitting(made)
