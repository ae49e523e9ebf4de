"""Example tasks, one of each kind. Delete them, and their tests, with the command in README.md, "The examples".

Nothing depends on this module. Its tasks belong to no queue's module, so they go to the default queue unless they are
sent with `queue=...`. Tasks of your own belong in `tasks/`.
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

from .celery import app

QUEUE = app.contract.default_queue.name
"""The queue of a chord's tasks, even if the contract refuses tasks that nothing assigns to a queue."""


@app.task
def count_words(text: str) -> int:
    """Count words: a quick task."""
    return len(text.split())


@app.task
def describe_count(count: int) -> str:
    """Describe a number of words: the second task of a chain, which gets the result of the first."""
    return "1 word" if count == 1 else f"{count} words"


@app.task
def add_up(counts: list[int]) -> int:
    """Add up numbers: the callback of a chord, which gets the results of all tasks before it."""
    return sum(counts)


def count_words_of_all(texts: list[str]) -> Signature[Any]:
    """Count the words of each text in parallel, then add up: a chord, which needs a result backend."""
    return chord(group(count_words.s(text).set(queue=QUEUE) for text in texts), add_up.s().set(queue=QUEUE))


@app.task
def count_words_in_file(path: str) -> int:
    """Count the words of a file: a task that fails as long as the file is missing.

    It has no try and no retry. A task that raises is redelivered after a backoff, and dead-lettered after
    `max_receive_count` attempts.
    """
    return len(Path(path).read_text(encoding="utf-8").split())


@app.task
def send_receipt(order_id: str, outbox: str) -> bool:
    """Send a receipt exactly once, however often the message is delivered: an idempotent task.

    One atomic step claims a key that follows from the arguments. Here that is a file. With a database, insert a
    unique key in the transaction that does the work.

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
    """Number pages: a slow task that logs how far it got when its soft limit is reached."""
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
    """Write a report: a long task that reports its progress, and can be cancelled between two pages.

    Each page costs two or three requests to the result backend, so a page should be worth a second of work. Without a
    result backend there is neither progress nor cancelling.

    Returns:
        The report. Redelivery writes the same one.
    """
    has_results = not self.request.called_directly and not isinstance(self.backend, DisabledBackend)
    report_id = str(self.request.id)
    written = []
    for page in range(1, pages + 1):
        if has_results and _cancellation(report_id).ready():
            self.backend.mark_as_revoked(report_id, "cancelled", request=self.request)
            raise Ignore("cancelled")
        time.sleep(seconds_per_page)
        written.append(f"Page {page} for {customer}")
        if has_results:
            self.update_state(state="PROGRESS", meta={"done": page, "of": pages})
    return "\n".join(written)


@app.task
def cancel_report(report_id: str) -> None:
    """Cancel a report before its next page, whether it runs or still waits.

    Sent as a task, it waits for a free slot. Called as a function, it acts at once, but the caller needs permission to
    write results.
    """
    app.backend.store_result(_cancellation(report_id).id, None, states.SUCCESS)


def _cancellation(report_id: str) -> AsyncResult[Any]:
    """Return the result that marks a report as cancelled; the report's own result is overwritten by its progress."""
    return app.AsyncResult(f"{report_id}-cancelled")


def examples() -> Iterator[Signature[Any]]:
    """Yield what `make dev` sends to every queue, every few seconds."""
    yield count_words.s("it works on AWS")
    yield count_words.s("one two three") | describe_count.s()
    yield number_pages.s(20)
    yield write_report.s("Ann", 2)
