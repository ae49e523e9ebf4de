"""moto's server, with what it lacks of SQS filled in.

Each gap names what AWS does. https://docs.getmoto.org/en/latest/docs/services/sqs.html
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

from moto.core.responses import ActionResult
from moto.server import ThreadedMotoServer
from moto.sqs.exceptions import QueueDoesNotExist
from moto.sqs.models import SQSBackend
from moto.sqs.responses import SQSResponse

LONGEST_POLL_SECONDS = 1
"""moto goes on with a long poll whose client is gone, and hands it the next message; that message
is then hidden for its whole visibility timeout. AWS notices. Short polls keep the harm small."""

_moves: list[dict[str, Any]] = []


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run moto on a free port of this machine alone, and yield its URL."""
    SQSBackend.receive_message = _short_poll(SQSBackend.receive_message)  # type: ignore[method-assign]
    SQSResponse.start_message_move_task = _start_message_move_task  # type: ignore[attr-defined]
    SQSResponse.list_message_move_tasks = _list_message_move_tasks  # type: ignore[attr-defined]
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        moto.stop()


def _short_poll(receive_message: Any) -> Any:
    def shorter(self: Any, queue: str, count: int, wait_seconds: int, *rest: Any) -> Any:
        return receive_message(self, queue, count, min(wait_seconds, LONGEST_POLL_SECONDS), *rest)

    return shorter


def _start_message_move_task(self: Any) -> ActionResult:
    """Move everything back at once. AWS takes its time, and counts receives from zero again."""
    source_arn = self._get_param("SourceArn")
    target_arn = self._get_param("DestinationArn")
    queues = {queue.queue_arn: queue for queue in self.sqs_backend.queues.values()}
    if source_arn not in queues or (target_arn and target_arn not in queues):
        raise QueueDoesNotExist()
    source = queues[source_arn]
    sources = self.sqs_backend.list_dead_letter_source_queues(source.name)
    target = queues[target_arn] if target_arn else sources[0]
    moved = list(source._messages)
    for message in moved:
        source._messages.remove(message)
        source.pending_messages.discard(message)
        message.approximate_receive_count = 0
        message.visible_at = 0
        target.add_message(message)
    handle = str(uuid.uuid4())
    _moves.insert(
        0,
        {
            "TaskHandle": handle,
            "Status": "COMPLETED",
            "SourceArn": source_arn,
            "ApproximateNumberOfMessagesMoved": len(moved),
            "ApproximateNumberOfMessagesToMove": len(moved),
            "StartedTimestamp": int(time.time() * 1000),
        },
    )
    return ActionResult({"TaskHandle": handle})


def _list_message_move_tasks(self: Any) -> ActionResult:
    source_arn = self._get_param("SourceArn")
    mine = [move for move in _moves if move["SourceArn"] == source_arn]
    return ActionResult({"Results": mine[: int(self._get_param("MaxResults") or 1)]})
