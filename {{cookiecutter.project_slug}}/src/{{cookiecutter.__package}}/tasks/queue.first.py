"""Tasks of this module's queue, with one example of each kind; replace them by your own.

Two rules for every task. It can be delivered twice (a worker dies after the work and before the
delete), so doing it again must do no harm. And it ends by itself well before its soft limit.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Signature, Task, chord, group, states
from celery.backends.base import DisabledBackend
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.result import AsyncResult

from ..celery import app


@app.task
def count_words(text: str) -> int:
    """Count words: a quick task."""
    return len(text.split())


@app.task
def add_up(counts: list[int]) -> int:
    """Add up what the tasks before it returned: the end of a chord."""
    return sum(counts)


@app.task
def describe(count: int) -> str:
    """Say it in words: the second link of a chain."""
    return "1 word" if count == 1 else f"{count} words"


@app.task
def count_words_in_file(path: str) -> int:
    """Count the words of a file: a task that fails as long as what it needs is not there.

    There is no try and no retry here. What is raised leaves the message in its queue, so it is
    delivered again later, and goes to the dead-letter queue when it keeps failing.
    """
    return len(Path(path).read_text(encoding="utf-8").split())


@app.task
def send_receipt(order_id: str, outbox: str) -> bool:
    """Send a receipt once, however often the message is delivered: an idempotent task.

    The effect is claimed under a name that follows from the arguments, in one atomic step. Here
    that is a file; with a database, an insert under a unique key in the transaction of the work.

    Returns:
        Whether this delivery sent it.
    """
    receipt = Path(outbox) / f"receipt-{order_id}.txt"
    with tempfile.NamedTemporaryFile("w", dir=outbox, delete=False, encoding="utf-8") as draft:
        draft.write(f"Thank you for order {order_id}.\n")
    try:
        os.link(draft.name, receipt)  # Fails if it exists, and never shows half a receipt.
    except FileExistsError:
        return False
    finally:
        Path(draft.name).unlink()
    return True


@app.task
def number_pages(pages: int, seconds_per_page: float = 0.01) -> int:
    """Work through many pages: a slow task that stops in order when its soft limit comes."""
    done = 0
    try:
        for _ in range(pages):
            time.sleep(seconds_per_page)
            done += 1
    except SoftTimeLimitExceeded:
        app.log.get_default_logger().warning("stopped after %d of %d pages", done, pages)
        raise
    return done


@app.task(bind=True)
def write_report(self: Task[Any, Any], customer: str, pages: int, seconds_per_page: float = 0.01) -> str:
    """Write a report: a long task that tells how far it is, and can be cancelled between two pages.

    Both go by way of the result store, which each page asks a few times, so a page should be worth
    a second of work. Without a store it just writes.

    Returns:
        The report. Delivered again, it is the same one.
    """
    has_store = not self.request.called_directly and not isinstance(self.backend, DisabledBackend)
    report_id = str(self.request.id)
    written = []
    for page in range(1, pages + 1):
        if has_store and _cancellation(report_id).ready():
            self.backend.mark_as_revoked(report_id, "cancelled", request=self.request)
            raise Ignore("cancelled")
        time.sleep(seconds_per_page)
        written.append(f"Page {page} for {customer}")
        if has_store:
            self.update_state(state="PROGRESS", meta={"done": page, "of": pages})
    return "\n".join(written)


@app.task
def cancel_report(report_id: str) -> None:
    """Have a report end before its next page, whether it has begun or still waits.

    Sent as a task, it waits for a free slot. Called as a function, it waits for nothing, but its
    caller needs the right to write results.
    """
    app.backend.store_result(_cancellation(report_id).id, None, states.SUCCESS)


def _cancellation(report_id: str) -> AsyncResult[Any]:
    """Return where it stands that a report is cancelled: beside its result, which its progress would overwrite."""
    return app.AsyncResult(f"{report_id}-cancelled")


def count_words_of_all(texts: list[str]) -> Signature[Any]:
    """Count every text side by side, then add up: a group and its chord, which need results."""
    return chord(group(count_words.s(text) for text in texts), add_up.s())


def examples() -> Iterator[Signature[Any]]:
    """Yield what `make dev` sends to this queue."""
    yield count_words.s("the quick brown fox jumps over the lazy dog")
    yield count_words.s("one two three") | describe.s()
    yield number_pages.s(20)
    yield write_report.s("customer-7", 3)
