"""The server of the console, on the loopback interface."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from ..commands import Failure
from .site import make_app

HOST = "127.0.0.1"
STOP_WITHIN_SECONDS = 15
"""How long the end waits for a page that holds dead-letter messages, so that they are released."""


class Handler(WSGIRequestHandler):
    """Names neither itself nor Python to others."""

    server_version = "console"
    sys_version = ""


class Console:
    """The console of an environment; it listens from `with` on."""

    def __init__(self, env: Any, port: int, *, read_only: bool) -> None:
        self.token = secrets.token_urlsafe(24)
        self.app = make_app(env, self.token, read_only=read_only)
        self.port = port

    def __enter__(self) -> Console:
        # The address has the token, so requests are not logged.
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        try:
            self.server = make_server(HOST, self.port, self.app, threaded=True, request_handler=Handler)
        except (OSError, SystemExit):  # werkzeug exits if the port is in use.
            raise Failure(f"port {self.port} of {HOST} cannot be listened on; choose another one with --port") from None
        self.port = self.server.server_port
        return self

    def __exit__(self, *_: object) -> None:
        self.server.server_close()
        self.app.extensions["peeking"].acquire(timeout=STOP_WITHIN_SECONDS)

    @property
    def address(self) -> str:
        """The address with the token, for a browser."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def serve(self) -> None:
        """Answer requests until Ctrl-C."""
        self.server.serve_forever()
