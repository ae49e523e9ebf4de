"""The pool of task processes by itself, without a worker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from library.support import CONTRACT, PATH, PROJECT

STOPPED_AS_IT_STARTS = """
import select, sys, time
from kombu.asynchronous import Hub, set_event_loop
from celery_aws import pool, service

package, size = sys.argv[1], int(sys.argv[2])
service.use(package)
def work(payload):
    time.sleep(1)

hub = Hub()
set_event_loop(hub)
app = service.app()
task_pool = pool.TaskPool(1, app=app, initargs=(app, "w@h"), threads=False)
task_pool.start()
task_pool.register_with_event_loop(hub)
loop, inner = hub.create_loop(), task_pool._pool
done, accepted = [], []

def turn(until):
    end = time.monotonic() + 30
    hub.call_repeatedly(0.05, lambda: None)
    while not until() and time.monotonic() < end:
        next(loop)
    assert until()

payload = "x" * size
job = inner.apply_async(work, (payload,), callback=done.append, accept_callback=lambda *begun: accepted.append(begun))
turn(lambda: job._write_to is not None)
if inner._active_writers:
    assert size  # Half of it is written.
else:
    assert select.select([job._write_to.outqR_fd], [], [], 30)[0]  # It runs, and nothing has read that.
    assert not size
assert not job._accepted
pool.announce_shutdown()
inner.flush()
assert accepted, "it was discarded while it ran"
turn(lambda: done)
inner.terminate()
print("read")
"""


@pytest.mark.end_to_end
@pytest.mark.parametrize("size_bytes", [0, 2_000_000], ids=["runs", "is half written"])
def test_attempt_when_its_worker_is_stopped_before_it_reads_the_start_then_is_not_forgotten(quiet, size_bytes):
    ran = subprocess.run(
        [sys.executable, "-c", STOPPED_AS_IT_STARTS, CONTRACT["package"], str(size_bytes)],
        cwd=PROJECT,
        env={**os.environ, **quiet.client_environment(), **PATH},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ran.stdout == "read\n", ran.stdout + ran.stderr
