"""The exceptions of the public interface. Services may catch any of them."""

from __future__ import annotations

from collections.abc import Sequence

from .contract import ContractError as ContractError
from .contract import UnknownNameError as UnknownNameError


class RefusedError(ValueError):
    """A request cannot be honoured. Nothing was sent; retrying does not help."""


class CountdownTooLongError(RefusedError):
    """The countdown or ETA is longer than the queue allows."""


class UnsupportedDelayError(RefusedError):
    """A countdown is not a finite number, an ETA is not a time, or a delayed task has a binary message attribute."""


class MessageGroupError(RefusedError):
    """A message group is not 1 to 128 visible ASCII characters."""


class MessageGroupMissingError(RefusedError):
    """A task was sent to a FIFO queue without a message group."""


class DeduplicationError(RefusedError):
    """A task's deduplication key is invalid, or its queue does not support deduplication."""


class MessageTooLargeError(RefusedError):
    """A message is larger than `max_message_bytes` of the contract."""


class SerializerError(RefusedError):
    """A task was sent with a serializer that workers do not accept."""


class UnknownQueueError(RefusedError):
    """A task was sent to a queue that is not in the contract."""


class RetryRefusedError(RefusedError):
    """A task called `self.retry()` with options that cannot be honoured; `__cause__` has the reason."""


class NotAllSentError(RuntimeError):
    """Some messages of a batch were not sent after several attempts."""

    def __init__(self, failed: Sequence[tuple[str, str, str]]) -> None:
        self.failed = tuple(failed)
        """Id, name and reason for each task that was not sent. All other tasks of the batch were sent."""
        listed = "\n".join(f"  {task}[{task_id}]: {reason}" for task_id, task, reason in self.failed[:10])
        more = f"\n  and {len(self.failed) - 10} more" if len(self.failed) > 10 else ""
        count = "1 task was" if len(self.failed) == 1 else f"{len(self.failed)} tasks were"
        super().__init__(f"{count} not sent:\n{listed}{more}")


class UnknownTaskError(LookupError):
    """The service has no task of that name."""


class UnsupportedError(ValueError):
    """An option of a task, a worker or the application conflicts with the delivery guarantees."""


class PurgeRefusedError(UnsupportedError):
    """`celery purge` or `app.control.purge()` was called, which would delete tasks of any environment."""

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"nothing was deleted from {queue}: `celery purge` and `app.control.purge()` are not supported, as they "
            f"delete the tasks of any environment. `queues purge` of the service deletes those of development"
        )


class EventLoopRunningError(RuntimeError):
    """A coroutine cannot run here, because an event loop is running in this thread; await it instead."""


class RemoteControlUnavailableError(NotImplementedError):
    """A command of `app.control`, `celery inspect` or `celery control` cannot reach workers: SQS has no broadcast.

    If the contract has `remote_control`, only commands about events raise it.
    """


class TaskRejectedError(Exception):
    """A task raised `Reject(requeue=False)`; its message is in the dead-letter queue."""


class TaskAbortedError(Exception):
    """A task raised a `BaseException` that is not an `Exception`, such as `SystemExit`."""


class ResultNotStorableError(Exception):
    """A task succeeded, but the result backend cannot store its return value."""


class ResultLostError(Exception):
    """A task succeeded, but its result was lost while the result backend was unavailable."""


class ResultsUnavailableError(RuntimeError):
    """The result backend was unavailable for longer than one attempt may wait."""


class InvalidMessageError(Exception):
    """A message is malformed, or has options that its queue does not allow."""


class ArgumentsError(TypeError):
    """The arguments of a message do not fit the task's parameters: its producer is of another version."""


class DeliveredTooOftenError(Exception):
    """A message exceeded `max_receive_count`: its workers died or held it for too long."""


class SettingsError(ValueError):
    """Environment variables are missing or invalid; the message lists all of them."""


class TracingUnavailableError(ValueError):
    """The contract has `tracing`, but OpenTelemetry is not installed."""


class QueueMissingError(LookupError):
    """No queue is bound for a message."""
