"""What the tests share: a database, a mail server, and the API as a process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message

pytest_plugins = ["celery_aws.testing.plugin"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


FOLDER = Path(tempfile.mkdtemp(prefix="reports-"))
SMTP_PORT, API_PORT = free_port(), free_port()
# Before a test imports the service; workers receive them as well.
os.environ["DATABASE_URL"] = f"sqlite:///{FOLDER}/reports.db"
os.environ["SMTP_URL"] = f"smtp://127.0.0.1:{SMTP_PORT}"


class Inbox(Message):
    """Keeps what the mail server receives."""

    def __init__(self):
        super().__init__()
        self.mails = []

    def handle_message(self, message):
        self.mails.append(message)

    def about(self, report_id):
        return [mail for mail in self.mails if report_id in mail["Message-ID"]]


@pytest.fixture(scope="session")
def inbox():
    """A mail server, and what it has received."""
    inbox = Inbox()
    server = Controller(inbox, hostname="127.0.0.1", port=SMTP_PORT)
    server.start()
    yield inbox
    server.stop()


@pytest.fixture(scope="session")
def api(service, inbox):
    """A client of the API, which runs as in `make dev`."""
    prepared = service.python("-m", "acme_reports.prepare")
    assert prepared.returncode == 0, prepared.stderr
    command = [sys.executable, "-m", "uvicorn", "acme_reports.api:api", f"--port={API_PORT}"]
    with subprocess.Popen(command, env=service.client_environment()) as server:
        with httpx.Client(base_url=f"http://127.0.0.1:{API_PORT}", timeout=30) as client:
            while server.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    client.get("/reports/none")
                    break
            yield client
        server.terminate()
