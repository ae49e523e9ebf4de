"""Remote control: SQS has no broadcast, so nobody can reach a worker."""

from __future__ import annotations

from typing import Any

from celery.app.control import Control as CeleryControl

from ... import delivery, errors


class Control(CeleryControl):
    """Refuses what would return in silence and do nothing: `revoke`, `ping`, `inspect` and the like."""

    def broadcast(self, command: str, *args: Any, **options: Any) -> Any:
        """Refuse to send a command to workers.

        Raises:
            RemoteControlUnavailableError: always, but where Celery itself revokes what a failed chord has left over.
        """
        attempt = delivery.current
        if attempt is not None and attempt.store_until:
            return None
        raise errors.RemoteControlUnavailableError(
            f"{command!r} was not sent: workers on SQS cannot be reached, as SQS has no broadcast. To end a task that "
            f"runs, have it look for that; see 'Progress, and cancelling' in docs/delivery.md. What workers do is in "
            f"their logs, and what waits in the command `queues`."
        )
