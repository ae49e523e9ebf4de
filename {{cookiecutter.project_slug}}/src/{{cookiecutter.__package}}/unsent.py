"""What sending can end with, whatever the broker."""

from __future__ import annotations

from collections.abc import Sequence


class MessageTooLargeError(ValueError):
    """A message is larger than the contract allows."""


class NotAllSentError(RuntimeError):
    """Some messages of a batch were not sent, though that was tried repeatedly."""

    def __init__(self, failed: Sequence[tuple[str, str, str]]) -> None:
        self.failed = tuple(failed)
        """Id and name of each task that was not sent, and the reason; every other one of the batch was."""
        listed = "\n".join(f"  {task}[{task_id}]: {reason}" for task_id, task, reason in self.failed[:10])
        more = f"\n  and {len(self.failed) - 10} more" if len(self.failed) > 10 else ""
        super().__init__(f"{len(self.failed)} tasks were not sent:\n{listed}{more}")
