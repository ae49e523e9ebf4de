"""A worker that Auto Scaling scales by what CloudWatch knows, minute by minute; no AWS.

What AWS documents is modelled: which metrics exist when, that they are late, what alarms make of that, and cooldowns.
How much target tracking adds or takes is not: here, it adds what brings the metric to its target, and takes one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from metric_math import Alarm, Series

STEP_SECONDS = 5
MINUTE = 60
ACTIVE_SECONDS = 6 * 3_600
"""SQS publishes metrics of a queue for so long after it was last used."""
ACTIVATION_SECONDS = 900
"""Delay of the metrics of a queue that was inactive.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/monitoring-using-cloudwatch.html
"""
Lateness = Callable[[str, int], int | None]
"""Says of a metric and a minute after how many minutes its value is there; None for never."""


@dataclass(frozen=True)
class Planned:
    """What Terraform plans for a worker."""

    backlog: str
    """Expression of target tracking."""
    cooldown_seconds: int
    """The cooldown of a scale-out; on EC2, the warm-up of an instance."""
    scales_in: bool
    from_zero: Alarm | None = None
    to_zero: Alarm | None = None


@dataclass(frozen=True)
class Setting:
    """Where a worker runs, and what it serves."""

    planned: Planned
    is_ec2: bool
    is_sqs: bool
    seconds_per_task: Mapping[str, int]
    """By queue, the most urgent one first."""
    least: int
    most: int = 50
    concurrency: int = 2
    late: Lateness = lambda metric, minute: 2 if metric == "running" else 1
    reports_zero: bool = False
    """Whether Container Insights has data of a service without tasks, which AWS does not say."""


@dataclass
class Worker:
    """One worker; `slots` are its tasks, with the second at which each is done."""

    ready_at: int
    slots: list[tuple[str, int]] = field(default_factory=list)
    is_stopping: bool = False


class World:
    """Queues, workers and metrics from second 0 on."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.now = 0
        self.waiting: dict[str, int] = dict.fromkeys(setting.seconds_per_task, 0)
        self.delayed: list[tuple[int, str]] = []
        self.desired = setting.least
        self.workers = [Worker(-3_600) for _ in range(self.desired)]
        self.history: list[int] = []
        """Desired workers at the end of each minute."""
        self._metrics: dict[str, dict[int, tuple[int, float]]] = defaultdict(dict)
        self._used_at = dict.fromkeys(self.waiting, 0)
        self._active_since = dict.fromkeys(self.waiting, -ACTIVATION_SECONDS)
        self._before_cooldown = self.desired
        self._scaled_out_at = self._scaled_in_at = self._from_zero_at = -3_600

    def run(self, minutes: int, per_minute: Mapping[str, float] | None = None) -> None:
        """Let minutes pass; `per_minute` says how many messages arrive in each queue."""
        for _ in range(minutes):
            for _ in range(MINUTE // STEP_SECONDS):
                for queue, rate in (per_minute or {}).items():
                    before, after = (int(rate * at / MINUTE) for at in (self.now, self.now + STEP_SECONDS))
                    self.send(queue, after - before)
                self.now += STEP_SECONDS
                self._work()
            self._measure()
            self._scale()
            self.history.append(self.desired)

    def send(self, queue: str, count: int = 1, delay_seconds: int = 0) -> None:
        """Send messages, if any."""
        if count:
            self._use(queue)
        if delay_seconds:
            self.delayed += [(self.now + delay_seconds, queue)] * count
        else:
            self.waiting[queue] += count

    @property
    def running(self) -> int:
        """Return how many workers run."""
        return sum(worker.ready_at <= self.now for worker in self.workers)

    def in_flight(self, queue: str) -> int:
        """Return how many messages of a queue are in work."""
        return sum(each == queue for worker in self.workers for each, _ in worker.slots)

    def _use(self, queue: str) -> None:
        if self.now - self._used_at[queue] > ACTIVE_SECONDS:
            self._active_since[queue] = self.now
        self._used_at[queue] = self.now

    def _work(self) -> None:
        for due, queue in [each for each in self.delayed if each[0] <= self.now]:
            self.delayed.remove((due, queue))
            self.waiting[queue] += 1
        for worker in self.workers:
            worker.slots = [slot for slot in worker.slots if slot[1] > self.now]
            if worker.ready_at <= self.now and not worker.is_stopping:
                self._receive(worker)
        self.workers = [worker for worker in self.workers if worker.slots or not worker.is_stopping]
        for queue, waiting in self.waiting.items():
            if waiting or self.in_flight(queue) or any(each == queue for _, each in self.delayed):
                self._use(queue)

    def _receive(self, worker: Worker) -> None:
        for queue in self.waiting:
            while self.waiting[queue] and len(worker.slots) < self.setting.concurrency:
                self.waiting[queue] -= 1
                worker.slots.append((queue, self.now + self.setting.seconds_per_task[queue]))
        if len(worker.slots) < self.setting.concurrency:
            for queue in self.waiting:
                self._use(queue)

    def _measure(self) -> None:
        """Publish the metrics of the minute that ends."""
        found: dict[str, float] = {}
        for index, queue in enumerate(self.waiting):
            if self.setting.is_sqs:
                is_active = self.now - self._used_at[queue] <= ACTIVE_SECONDS
                if is_active and self.now - self._active_since[queue] >= ACTIVATION_SECONDS:
                    found[f"visible{index}"] = self.waiting[queue]
                    delayed = sum(each == queue for _, each in self.delayed)
                    found |= {f"in_flight{index}": held} if (held := self.in_flight(queue)) else {}
                    found |= {f"delayed{index}": delayed} if delayed else {}
            elif self.running:
                found[f"visible{index}"] = self.waiting[queue]
        if self.running or self.setting.is_ec2 or self.setting.reports_zero:
            found["running"] = self.running
        minute = self.now // MINUTE
        for metric, value in found.items():
            late = self.setting.late(metric, minute)
            if late is not None:
                self._metrics[metric][minute] = (minute + late, value)

    def _series(self, minutes: int) -> dict[str, Series]:
        minute = self.now // MINUTE
        ids = ["running"] + [
            f"{kind}{index}" for kind in ("visible", "in_flight", "delayed") for index in range(len(self.waiting))
        ]
        window = range(minute - minutes + 1, minute + 1)
        read = {metric: [self._metrics[metric].get(each) for each in window] for metric in ids}
        return {
            metric: [known[1] if known and known[0] <= minute else None for known in found]
            for metric, found in read.items()
        }

    def value_in_alarm(self, alarm: Alarm | None) -> float | None:
        """Return the newest value if an alarm is in ALARM, else None."""
        return alarm and alarm.value_in_alarm(self._series(alarm.minutes_read))

    def _scale(self) -> None:
        planned = self.setting.planned
        # Target tracking's own alarms: three minutes above the target of 1, or 15 below nine tenths.
        high = self.value_in_alarm(Alarm(planned.backlog, lambda value: value > 1, 3))
        low = self.value_in_alarm(Alarm(planned.backlog, lambda value: value < 0.9, 15))
        if high is not None:
            self._scale_out(high)
        elif low is not None and planned.scales_in and self.now - self._scaled_in_at >= 300:
            self._scale_in(max(self.setting.least, self.desired - 1))
        if self.value_in_alarm(planned.from_zero) is not None and self.now - self._from_zero_at >= 300:
            self._from_zero_at = self.now
            self._set(self.desired + 1)
        if self.value_in_alarm(planned.to_zero) is not None:
            self._scale_in(0)

    def _scale_out(self, value: float) -> None:
        is_cooling = self.now - self._scaled_out_at < self.setting.planned.cooldown_seconds
        if self.setting.is_ec2:  # Machines that start or warm up count as added, not as a base.
            base = sum(worker.ready_at <= self.now - self.setting.planned.cooldown_seconds for worker in self.workers)
        else:
            base = self._before_cooldown if is_cooling else self.desired
        wanted = min(self.setting.most, math.ceil(base * value))
        if wanted > self.desired:
            if not is_cooling:
                self._before_cooldown = self.desired
            self._scaled_out_at = self.now
            self._set(wanted)

    def _scale_in(self, wanted: int) -> None:
        if wanted < self.desired:
            self._scaled_in_at = self.now
            self._set(wanted)

    def _set(self, wanted: int) -> None:
        """Start workers, or stop some: those with the least to do first, which finish that."""
        self.desired = min(self.setting.most, wanted)
        staying = [worker for worker in self.workers if not worker.is_stopping]
        start_seconds = 180 if self.setting.is_ec2 else 90
        self.workers += [Worker(self.now + start_seconds) for _ in range(self.desired - len(staying))]
        staying.sort(key=lambda worker: (worker.ready_at <= self.now, len(worker.slots)))
        for worker in staying[: max(0, len(staying) - self.desired)]:
            worker.is_stopping = True
