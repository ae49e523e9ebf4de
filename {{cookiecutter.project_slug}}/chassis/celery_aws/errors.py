"""The errors that the service raises; owners may catch any of them."""

from __future__ import annotations

from collections.abc import Sequence


class RefusedError(ValueError):
    """What was asked for cannot be honoured. Nothing was sent, and asking again changes nothing."""


class CountdownTooLongError(RefusedError):
    """The countdown or ETA is longer than the queue allows."""


class MessageGroupError(RefusedError):
    """A message group is not 1 to 128 visible ASCII characters."""


class MessageGroupMissingError(RefusedError):
    """A task was sent to a FIFO queue without a message group."""


class MessageTooLargeError(RefusedError):
    """A message is larger than `max_message_bytes` of the contract."""


class SerializerError(RefusedError):
    """A task was sent with a serializer that workers do not accept."""


class UnknownQueueError(RefusedError):
    """A task was sent to a queue that the contract does not have."""


class RetryRefusedError(RefusedError):
    """A task called `self.retry()` with options that cannot be honoured; the cause says which."""


class NotAllSentError(RuntimeError):
    """Some messages of a batch were not sent, though that was tried repeatedly."""

    def __init__(self, failed: Sequence[tuple[str, str, str]]) -> None:
        self.failed = tuple(failed)
        """Id and name of each task that was not sent, and the reason; every other one of the batch was."""
        listed = "\n".join(f"  {task}[{task_id}]: {reason}" for task_id, task, reason in self.failed[:10])
        more = f"\n  and {len(self.failed) - 10} more" if len(self.failed) > 10 else ""
        super().__init__(f"{len(self.failed)} tasks were not sent:\n{listed}{more}")


class UnknownTaskError(LookupError):
    """No task of the service has that name."""


class UnsupportedError(ValueError):
    """An option of a task, a worker or the application contradicts what the service promises."""


class RemoteControlUnavailableError(NotImplementedError):
    """The broker has no broadcast, so workers cannot be reached by `app.control` or `celery inspect`."""


class TaskRejectedError(Exception):
    """A task raised `Reject`; its message is in the dead-letter queue."""


class TaskAbortedError(Exception):
    """A task raised a `BaseException` that is not an `Exception`, such as `SystemExit`."""


class ResultNotStorableError(Exception):
    """A task ran to its end, but the result backend cannot store what it returned."""


class ResultLostError(Exception):
    """A task ran to its end, but its result could not be kept until the result backend was available again."""


class ResultsUnavailableError(RuntimeError):
    """The result backend has been unavailable for longer than a delivery may take."""


class InvalidMessageError(Exception):
    """A message asks for what its queue does not allow, or is malformed."""


class DeliveredTooOftenError(Exception):
    """A message was received after its last delivery: workers died, or held it for too long."""


class SettingsError(ValueError):
    """Environment variables are missing or wrong; the message lists every one of them."""
