"""The rows of the outbox in a database of Django; see `Rows`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any

from django.db import Error, connections, router, transaction
from django.db.models import Exists, OuterRef, Q

from .. import BATCH, Row, Value, in_thread
from .models import OutboxMessage


class ModelRows:
    """The rows in one database.

    Args:
        using: alias of the database; by default the one for writing.
    """

    def __init__(self, using: str | None = None) -> None:
        self.using = using or router.db_for_write(OutboxMessage)

    @property
    def _all(self) -> Any:
        return OutboxMessage.objects.using(self.using)

    def claim(self, token: str, now: float, until: float, only: Collection[str] | None) -> list[Row]:
        """Claim rows and return them."""
        earlier = self._all.filter(ordering_key=OuterRef("ordering_key"), id__lt=OuterRef("id"), error=None)
        free = self._all.filter(error=None, available_at__lte=now)
        free = free.filter(Q(ordering_key=None) | ~Exists(earlier))
        if only is not None:
            free = free.filter(task_id__in=only)
        with transaction.atomic(using=self.using):
            # Databases without locks of rows ignore them, and may let another relay choose the same rows.
            ids = list(free.order_by("id").select_for_update(skip_locked=True).values_list("id", flat=True)[:BATCH])
            if not ids:
                return []
            chosen = self._all.filter(id__in=ids, available_at__lte=now)
            chosen.update(claimed_by=token, available_at=until)
            found = self._all.filter(claimed_by=token).order_by("id")
            return [Row(*row) for row in found.values_list("id", "task_id", "task", "message")]

    def delete(self, token: str, ids: Collection[int]) -> None:
        """Delete rows that were sent."""
        self._all.filter(claimed_by=token, id__in=ids).delete()

    def defer(self, token: str, ids: Collection[int], until: float) -> None:
        """Release rows until they can be claimed again."""
        self._all.filter(claimed_by=token, id__in=ids).update(claimed_by=None, available_at=until)

    def fail(self, token: str, id: int, reason: str) -> None:  # noqa: A002
        """Mark a row that can never be sent."""
        self._all.filter(claimed_by=token, id=id).update(claimed_by=None, error=reason)

    def waiting(self) -> int:
        """Return how many rows wait to be sent, also those that cannot be claimed yet."""
        return int(self._all.filter(error=None).count())

    def reconnect(self) -> None:
        """Close the connection, so that Django opens another one.

        Django itself closes connections that were lost only between web requests.
        """
        with contextlib.suppress(Error):
            connections[self.using].close()

    def call_in_thread(self, function: Callable[[], Value]) -> Value:
        """Call a function in another thread."""
        return in_thread(function)
