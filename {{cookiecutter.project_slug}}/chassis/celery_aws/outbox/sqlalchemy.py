"""The outbox in a table of SQLAlchemy 2. See docs/outbox.md of the service."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import celery
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    delete,
    event,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, registry

from ..aio import in_thread as in_thread_of_loop
from . import BATCH, INTERVAL_SECONDS, TABLE_NAME, Relayed, Row, Value, columns, in_thread, relay, relay_committed, run

if TYPE_CHECKING:
    from ..sending import Service

PENDING = f"{__name__}.pending"
"""Key of `Session.info` with the messages that the session's transaction has written."""


class Outbox:
    """Writes messages in transactions, and sends them after these.

    Args:
        app: the application.
        metadata: where to define the table, such as `Base.metadata`; by default the outbox's own.
        table_name: name of the table.
        at_commit: whether the process that commits sends at once. Otherwise only relays send.
    """

    def __init__(
        self,
        app: Service[Any],
        metadata: MetaData | None = None,
        table_name: str = TABLE_NAME,
        at_commit: bool = True,
    ) -> None:
        self.app = app
        self.at_commit = at_commit
        self.table = _table(table_name, metadata if metadata is not None else MetaData())
        self.metadata = self.table.metadata
        self._row = type("OutboxRow", (), {})
        registry(metadata=self.metadata).map_imperatively(self._row, self.table)

    def send(
        self,
        session: Any,
        task: celery.Task[Any, Any] | str,
        *args: Any,
        group: str | None = None,
        countdown: float | None = None,
        **kwargs: Any,
    ) -> str:
        """Write one message in the transaction of a session; it is sent after the commit, and not after a rollback.

        Args:
            session: a `Session` or an `AsyncSession`.
            task: the task, or its name as in `Service.find`.
            args: its positional arguments.
            group: its message group.
            countdown: delay in seconds from now.
            kwargs: its keyword arguments.

        Returns:
            The id of the task, for `app.AsyncResult`.

        Raises:
            TypeError: the task has other parameters.
            UnknownTaskError: there is no such task.
            ValueError: the group, the countdown or the message size is invalid.
            kombu.exceptions.EncodeError: the arguments cannot be serialized.
        """
        session = getattr(session, "sync_session", session)
        row = self._row()
        for name, value in columns(self.app, task, args, kwargs, group, countdown).items():
            setattr(row, name, value)
        session.add(row)
        if self.at_commit:
            engine = session.get_bind(self._row).engine
            session.info.setdefault(PENDING, {}).setdefault((self, engine), []).append(row.task_id)
        return str(row.task_id)

    def relay(self, engine: Engine) -> Relayed:
        """Send the messages that wait, and return what became of them."""
        return relay(self.app, TableRows(self.table, engine.begin))

    async def relay_async(self, engine: Any) -> Relayed:
        """Send the messages that wait, by way of an `AsyncEngine`, and return what became of them."""
        async with engine.connect() as connection:
            relayed: Relayed = await connection.run_sync(self._relay_with)
            return relayed

    def _relay_with(self, connection: Connection) -> Relayed:
        @contextlib.contextmanager
        def begin() -> Iterator[Connection]:
            with connection.begin():
                yield connection

        return relay(self.app, TableRows(self.table, begin, is_async=True))

    def run(
        self, engine: Engine, stop: threading.Event | None = None, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        """Send waiting messages until it is stopped, in a process or thread of its own.

        Args:
            engine: the database.
            stop: set it to end.
            interval_seconds: seconds between polls of the table.
        """
        run(self.app, TableRows(self.table, engine.begin), stop, interval_seconds)


class TableRows:
    """The rows of an outbox's table; see `Rows`.

    Args:
        table: the table.
        begin: returns a transaction as a context manager.
        is_async: whether the database has an asynchronous driver, so that the caller is on an event loop.
    """

    def __init__(
        self, table: Table, begin: Callable[[], AbstractContextManager[Connection]], is_async: bool = False
    ) -> None:
        self.table = table
        self.begin = begin
        self.is_async = is_async

    def claim(self, token: str, now: float, until: float, only: Collection[str] | None) -> list[Row]:
        """Claim rows and return them."""
        columns, is_free = self.table.c, self.table.c.available_at <= now
        with self.begin() as connection:
            ids = list(connection.execute(claimable(self.table, now, only)).scalars())
            if not ids:
                return []
            # A database without locks of rows may have let another relay choose the same ones.
            claim = update(self.table).where(columns.id.in_(ids), is_free)
            connection.execute(claim.values(claimed_by=token, available_at=until))
            found = select(columns.id, columns.task_id, columns.task, columns.message)
            return [
                Row(*row) for row in connection.execute(found.where(columns.claimed_by == token).order_by(columns.id))
            ]

    def delete(self, token: str, ids: Collection[int]) -> None:
        """Delete rows that were sent."""
        with self.begin() as connection:
            connection.execute(delete(self.table).where(*self._held(token, ids)))

    def defer(self, token: str, ids: Collection[int], until: float) -> None:
        """Release rows until they can be claimed again."""
        self._update(token, ids, claimed_by=None, available_at=until)

    def fail(self, token: str, id: int, reason: str) -> None:  # noqa: A002
        """Mark a row that can never be sent."""
        self._update(token, [id], claimed_by=None, error=reason)

    def _update(self, token: str, ids: Collection[int], **values: Any) -> None:
        with self.begin() as connection:
            connection.execute(update(self.table).where(*self._held(token, ids)).values(**values))

    def _held(self, token: str, ids: Collection[int]) -> tuple[Any, Any]:
        return self.table.c.claimed_by == token, self.table.c.id.in_(ids)

    def reconnect(self) -> None:
        """Do nothing: a pool of SQLAlchemy replaces connections that were lost."""

    def call_in_thread(self, function: Callable[[], Value]) -> Value:
        """Call a function in another thread; do not block the event loop, if there is one."""
        if not self.is_async:
            return in_thread(function)
        from sqlalchemy.util import await_only

        returned: Value = await_only(in_thread_of_loop("send", function))
        return returned


def claimable(table: Table, now: float, only: Collection[str] | None = None) -> Any:
    """Return the query for the ids of the rows that can be claimed; see `Rows.claim`."""
    held, earlier = table.c, table.alias("earlier")
    is_behind = exists().where(
        earlier.c.ordering_key == held.ordering_key, earlier.c.id < held.id, earlier.c.error.is_(None)
    )
    is_free = and_(held.error.is_(None), held.available_at <= now, or_(held.ordering_key.is_(None), ~is_behind))
    query = select(held.id).where(is_free).order_by(held.id).limit(BATCH).with_for_update(skip_locked=True, of=table)
    return query if only is None else query.where(held.task_id.in_(only))


def _table(name: str, metadata: MetaData) -> Table:
    number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts integers only.
    return Table(
        name,
        metadata,
        Column("id", number, primary_key=True, autoincrement=True),
        Column("task_id", String(255), nullable=False, unique=True),
        Column("task", String(255), nullable=False),
        Column("ordering_key", String(255)),
        Column("message", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, default=lambda: datetime.now(timezone.utc)),
        Column("available_at", Float(53), nullable=False, default=0.0),
        Column("claimed_by", String(36)),
        Column("error", Text),
        Index(f"{name}_ordering_key", "ordering_key", "id"),
        sqlite_autoincrement=True,  # Otherwise SQLite gives the id of a deleted row to a new one.
    )


def _send_committed(session: Session, transaction: Any) -> None:
    """Send what the transaction has written; if it was rolled back, the table has nothing of it.

    The connection of the session is in its pool again, so that a pool of one suffices.
    """
    if transaction.parent is not None or not (pending := session.info.pop(PENDING, None)):
        return
    for (outbox, engine), task_ids in pending.items():
        rows = TableRows(outbox.table, engine.begin, engine.dialect.is_async)
        relay_committed(outbox.app, rows, task_ids)


event.listen(Session, "after_transaction_end", _send_committed)
