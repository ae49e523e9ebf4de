"""The depth of the queues, from SQS and CloudWatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from botocore.exceptions import ClientError

from ...aws import is_missing
from ...cloudwatch import Series
from ...contract import Queue
from ...environment.sqs import Environment
from ...pausing import Pause
from ...pausing import sqs as pausing
from .measured import AGE, DEPTH, latest, read

HISTORY_SECONDS, HISTORY_PERIOD_SECONDS = 3 * 3_600, 300
NAME = "ApproximateNumberOfMessages"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Depth:
    """The depth of a queue; the counts are approximate, and None if the queue does not exist."""

    queue: str
    waiting: int | None
    in_flight: int | None
    delayed: int | None
    oldest_seconds: float | None
    """Age of the oldest message, as of some minutes ago; None if CloudWatch has no data."""
    acceptable_latency_seconds: int
    dead: int | None
    paused: Pause | None = None
    missing: tuple[str, ...] = ()
    """Which of the queue and its dead-letter queue do not exist, by their names at SQS."""

    @property
    def is_late(self) -> bool:
        """Whether the oldest message has waited longer than `acceptable_latency_seconds`."""
        return (self.oldest_seconds or 0) > self.acceptable_latency_seconds

    @property
    def is_well(self) -> bool:
        """Whether it exists and is not paused, there are no dead-letter messages, and no message is late."""
        return not (self.missing or self.paused or self.dead or self.is_late)


def depth(env: Environment, queue: Queue, oldest_seconds: float | None, pause: Pause | None) -> Depth:
    """Return the depth of a queue."""
    counts = _if_there(lambda: env.attributes(queue, NAME, f"{NAME}NotVisible", f"{NAME}Delayed"))
    dead = _if_there(lambda: env.depth(queue, dead=True))
    return Depth(
        queue.name,
        int(counts[NAME]) if counts else None,
        int(counts[f"{NAME}NotVisible"]) if counts else None,
        int(counts[f"{NAME}Delayed"]) if counts else None,
        oldest_seconds,
        queue.acceptable_latency_seconds,
        dead,
        pause,
        tuple(env.name(queue, dead=is_dead) for is_dead, held in ((False, counts), (True, dead)) if held is None),
    )


def _if_there(ask: Callable[[], Answer]) -> Answer | None:
    """Return what SQS answers about a queue; None if the queue does not exist."""
    try:
        return ask()
    except ClientError as error:
        if not is_missing(error):
            raise
        return None


def depths(env: Environment) -> list[Depth]:
    """Return the depth of every queue.

    Raises:
        ClientError: SQS refused a request, or no queue exists.
    """
    oldest, paused = latest(env, AGE), pausing.paused(env)
    queues = env.contract.queues
    found = [depth(env, queue, oldest.get(queue.name), paused.get(queue.name)) for queue in queues]
    if all(each.waiting is None for each in found):
        env.attributes(queues[0])  # Its error says what to check.
    return found


def purge(env: Environment, queue: Queue) -> None:
    """Delete all messages that wait in a queue."""
    env.sqs.purge_queue(QueueUrl=env.url(queue))


def history(env: Environment) -> dict[str, Series]:
    """Return how many messages waited in the last hours, by queue, of those for which CloudWatch has data."""
    found = read(env, env.contract.queues, [DEPTH], HISTORY_SECONDS, HISTORY_PERIOD_SECONDS)
    return {queue: series for (queue, _), series in found.items() if any(v is not None for v in series.values)}
