"""Sends the messages of the outbox that wait."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from .... import INTERVAL_SECONDS
from ... import relay, run
from ...rows import ModelRows


class Command(BaseCommand):  # type: ignore[misc]
    """`manage.py relay_outbox`."""

    help = "Send the messages of the outbox that wait, until Ctrl-C or SIGTERM"

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument("--once", action="store_true", help="send what waits now, and exit")
        parser.add_argument("--database", help="alias of the database; default: the one for writing")
        parser.add_argument("--interval", type=float, default=INTERVAL_SECONDS, help="seconds between polls")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        if options["once"]:
            relayed = relay(options["database"])
            waiting = ModelRows(options["database"]).waiting()
            self.stdout.write(f"sent {relayed.sent}, refused {relayed.refused}, waiting {waiting}")
            return
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        run(options["database"], stop, options["interval"])
