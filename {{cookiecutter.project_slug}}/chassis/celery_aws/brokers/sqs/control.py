"""Remote control, which SQS does not support because it has no broadcast."""

from __future__ import annotations

from typing import Any

from celery.app.control import Control as CeleryControl

from ... import delivery, errors


class Control(CeleryControl):
    """Refuses commands that would silently have no effect, such as `revoke`, `ping` and `inspect`."""

    def broadcast(self, command: str, *args: Any, **options: Any) -> Any:
        """Refuse to send a command to workers.

        Raises:
            RemoteControlUnavailableError: always, unless Celery itself revokes the rest of a failed chord.
        """
        attempt = delivery.current
        if attempt is not None and attempt.store_until:
            return None
        raise errors.RemoteControlUnavailableError(
            f"{command!r} was not sent: SQS has no broadcast, so workers cannot be reached. To cancel a running task, "
            f"let it check for that; see 'Progress, and cancelling' in docs/delivery.md. For the state of workers, see "
            f"their logs; for the depth of queues, the command `queues`."
        )
