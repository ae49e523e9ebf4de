"""The depth of the queues, from SQS and CloudWatch."""

from __future__ import annotations

from dataclasses import dataclass

from ...cloudwatch import Series
from ...contract import Queue
from ...environment.sqs import Environment
from ...pausing import Pause
from ...pausing import sqs as pausing
from .measured import AGE, DEPTH, latest, read

HISTORY_SECONDS, HISTORY_PERIOD_SECONDS = 3 * 3_600, 300


@dataclass(frozen=True)
class Depth:
    """The depth of a queue; the counts are approximate."""

    queue: str
    waiting: int
    in_flight: int
    delayed: int
    oldest_seconds: float | None
    """Age of the oldest message, as of some minutes ago; None if CloudWatch has no data."""
    acceptable_latency_seconds: int
    dead: int
    paused: Pause | None = None

    @property
    def is_late(self) -> bool:
        """Whether the oldest message has waited longer than `acceptable_latency_seconds`."""
        return (self.oldest_seconds or 0) > self.acceptable_latency_seconds

    @property
    def is_well(self) -> bool:
        """Whether it is not paused, there are no dead-letter messages, and no message is late."""
        return not (self.paused or self.dead or self.is_late)


def depth(env: Environment, queue: Queue, oldest_seconds: float | None, pause: Pause | None) -> Depth:
    """Return the depth of a queue."""
    name = "ApproximateNumberOfMessages"
    counts = env.attributes(queue, name, f"{name}NotVisible", f"{name}Delayed")
    return Depth(
        queue.name,
        int(counts[name]),
        int(counts[f"{name}NotVisible"]),
        int(counts[f"{name}Delayed"]),
        oldest_seconds,
        queue.acceptable_latency_seconds,
        env.depth(queue, dead=True),
        pause,
    )


def depths(env: Environment) -> list[Depth]:
    """Return the depth of every queue."""
    oldest, paused = latest(env, AGE), pausing.paused(env)
    return [depth(env, queue, oldest.get(queue.name), paused.get(queue.name)) for queue in env.contract.queues]


def purge(env: Environment, queue: Queue) -> None:
    """Delete all messages that wait in a queue."""
    env.sqs.purge_queue(QueueUrl=env.url(queue))


def history(env: Environment) -> dict[str, Series]:
    """Return how many messages waited in the last hours, by queue, of those for which CloudWatch has data."""
    found = read(env, env.contract.queues, [DEPTH], HISTORY_SECONDS, HISTORY_PERIOD_SECONDS)
    return {queue: series for (queue, _), series in found.items() if any(v is not None for v in series.values)}
