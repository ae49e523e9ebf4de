"""Exports of dead-letter messages and their import, where all brokers do the same, also with FIFO queues."""

from __future__ import annotations

import functools
import importlib
import json
import resource
import subprocess

import pytest

from library.commands import COMMAND, Commands, exported_bodies
from library.support import BROKER, broker, eventually

messages = importlib.import_module(f"library.{BROKER}.messages")

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture
def commands(quiet):
    """Its command, with an empty dead-letter queue."""
    with quiet.app.connection_for_write() as connection:  # Which declares the queues of RabbitMQ.
        assert connection.default_channel
    broker.empty(quiet, dead=True)
    return Commands(quiet)


@pytest.fixture
def queue(quiet):
    return quiet.queue.name


def test_export_when_the_disk_is_full_then_the_file_has_what_was_removed(quiet, commands, queue, tmp_path):
    messages.put(quiet, [messages.celery_body(n) for n in range(300)])
    file = tmp_path / "messages.jsonl"
    full = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
    arguments = [*COMMAND, "dlq", "export", queue, str(file), "--remove"]

    environment = {**commands.environment, "PYTHONDONTWRITEBYTECODE": "1"}  # The limit would cut bytecode, too.

    def export():
        return subprocess.run(arguments, env=environment, preexec_fn=full, capture_output=True, text=True)

    ran = export()
    written = len(exported_bodies(file))
    assert (ran.returncode, 0 < written < 300) == (2, True), ran.stderr
    assert f"it has {written} messages, removed from" in " ".join(ran.stderr.split())
    assert eventually(lambda: quiet.dead() == 300 - written)
    assert f"{written} messages sent" in commands.run("dlq", "import", queue, file)
    file.unlink()
    full = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100, 100))
    ran = export()
    assert (ran.returncode, file.exists()) == (2, False), ran.stderr
    assert eventually(lambda: quiet.dead() == 300)


def test_import_when_the_file_is_of_another_queue_then_is_refused(quiet, commands, queue, tmp_path):
    file, other = tmp_path / "messages.jsonl", quiet.contract.queues[-1].name
    messages.put(quiet, [messages.celery_body(1)])
    commands.run("dlq", "export", queue, file)
    commands.run("dlq", "import", other, file, status=2)
    assert f"exported from queue {queue}, not {other}" in " ".join(commands.errors.split())
    line = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**line, "queue": "old-name"}) + "\n", encoding="utf-8")
    assert "1 message would be sent" in commands.run("dlq", "import", other, file, "--dry-run")
    del line["queue"]  # As earlier versions wrote it.
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert "1 message would be sent" in commands.run("dlq", "import", other, file, "--dry-run")
