"""Runs Celery's beat on the schedules of the contract.

On RabbitMQ in AWS, and on any broker in development; on SQS in AWS, EventBridge Scheduler fires schedules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from celery.beat import Scheduler

from . import service
from .contract import BEAT, Schedule
from .contract.schedules import due_times
from .errors import RefusedError, UnsupportedError
from .liveness import BEAT_SECONDS, Reporter
from .schedules import as_text, send, task_id
from .sending import Service

logger = logging.getLogger(__name__)

SET_BACK_SECONDS = 60
"""A clock that is set back by more than this is logged."""


class NoSchedulesError(LookupError):
    """The contract has no schedules."""


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(timezone.utc)


def start() -> None:
    """Run the beat until it is stopped by SIGTERM or Ctrl-C.

    Raises:
        NoSchedulesError: the contract has no schedules.
        UnsupportedError: Celery's own setting `beat_schedule` has entries.
    """
    if not service.contract().schedules:
        raise NoSchedulesError("contract.json has no schedules, so there is nothing to send")
    app = service.app()
    if app.conf.beat_schedule:
        raise UnsupportedError(
            f"beat_schedule has entries: {', '.join(app.conf.beat_schedule)}. Move them to `schedules` in contract.json"
        )
    scheduler = f"{__name__}:{ContractScheduler.__name__}"
    app.Beat(scheduler_cls=scheduler, loglevel=app.settings.log_level, quiet=True, remote_control=False).run()


class Firings:
    """The times at which a schedule is due, one after the other."""

    def __init__(self, schedule: Schedule, after: datetime) -> None:
        self.schedule = schedule
        self._times: Iterator[datetime] = due_times(schedule, after)
        self.due = next(self._times, None)
        """The next one, or one that is due and not sent yet; None after the last."""
        self._following = next(self._times, None)
        self.failure: Exception | None = None
        """Why the one that is due has not been sent yet."""

    def advance(self) -> None:
        """Go on to the following one."""
        self.due, self._following = self._following, next(self._times, None)
        self.failure = None

    def is_over(self, at: datetime) -> bool:
        """Return whether the following one is due as well at a time, so that this one is not sent any more."""
        return self._following is not None and self._following <= at


class ContractScheduler(Scheduler):
    """A scheduler whose entries are the contract's schedules.

    It keeps nothing on disk. When it starts, only what is due from then on is sent. A task that cannot
    be sent is tried again until its schedule is due again.
    """

    app: Service[Any]

    def setup_schedule(self) -> None:
        """Begin with what is due from now on."""
        contract = self.app.contract
        self._latest = now()
        self._firings = [Firings(schedule, self._latest) for schedule in contract.schedules if schedule.enabled]
        self._reporter = Reporter(contract, BEAT)

    def tick(self, *args: Any, **options: Any) -> float:
        """Send what is due; return the seconds until the next tick."""
        self._notice_clock()
        for firings in self._firings:
            self._fire(firings)
            self._reporter.report()
        self._reporter.report()
        upcoming = [each.due for each in self._firings if each.due]
        return max(0.0, min([BEAT_SECONDS, *((due - now()).total_seconds() for due in upcoming if due > self._latest)]))

    def close(self) -> None:
        """Log what is due and was not sent, because the beat stops."""
        for firings in self._firings:
            if firings.due and firings.failure:
                _log_lost(firings.schedule, firings.due, 1, firings.failure)
                firings.failure = None

    def _notice_clock(self) -> None:
        """Log a clock that was set back. What was sent before is not due again, so schedules wait for it."""
        time = now()
        if (seconds := (self._latest - time).total_seconds()) > SET_BACK_SECONDS:
            logger.warning(
                "the clock was set back by %d s; schedules that were due since then go on after %s, or when the beat "
                "is restarted",
                seconds,
                as_text(self._latest),
            )
        self._latest = time

    def _fire(self, firings: Firings) -> None:
        """Send the latest task that is due, if one is, and log earlier ones, which are not sent any more."""
        due, failure, lost = firings.due, firings.failure, 0
        while firings.is_over(self._latest):
            firings.advance()
            lost += 1
        if due and lost:
            _log_lost(firings.schedule, due, lost, failure)
        if firings.due and firings.due <= self._latest:
            self._send(firings, firings.due)

    def _send(self, firings: Firings, due: datetime) -> None:
        schedule = firings.schedule
        try:
            send(self.app, schedule, due)
        except RefusedError as error:
            _log_lost(schedule, due, 1, error)
        except SystemExit:
            firings.failure = InterruptedError("the beat was stopped while it was being sent")
            raise
        except Exception as error:  # noqa: BLE001 - a bug, too, concerns this task alone
            if not firings.failure:
                about = f"schedule {schedule.name}: the task due at {as_text(due)} could not be sent and is tried again"
                logger.warning("%s: %r", about, error, extra=_fields(schedule, due))
            firings.failure = error
            return
        else:
            logger.info("schedule %s: sent", schedule.name, extra=_fields(schedule, due))
        firings.advance()


def _log_lost(schedule: Schedule, due: datetime, count: int, failure: Exception | None) -> None:
    """Log that tasks, the first of which was due at a time, will not be sent."""
    logger.error(
        "schedule %s: the task due at %s was not sent%s: %s",
        schedule.name,
        as_text(due),
        f", nor {count - 1} after it" if count > 1 else "",
        repr(failure) if failure else "the beat was suspended, or the clock was put forward",
        extra=_fields(schedule, due),
    )


def _fields(schedule: Schedule, due: datetime) -> dict[str, str]:
    return {
        "task": service.app().contract.full_name(schedule.task),
        "task_id": task_id(schedule, due),
        "schedule": schedule.name,
    }
