"""A proxy in front of a server that does to connections what networks do on bad days, and counts them."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

CHUNK_BYTES = 65_536


class Proxy:
    """Hands bytes on; with the fault `hang` it swallows them, with `refused` it resets whoever comes."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (str(parts.hostname), int(parts.port or 5672))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{parts.scheme}://127.0.0.1:{self.listener.getsockname()[1]}{parts.path}"
        self.fault = ""
        self.seen: Counter[str] = Counter()
        self._open: list[socket.socket] = []

    def serve(self) -> None:
        """Accept connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                self.seen["connection"] += 1
                if self.fault == "refused":
                    _reset(near)
                    continue
                try:
                    far = socket.create_connection(self.upstream)
                except OSError:  # The server itself is gone.
                    _reset(near)
                    continue
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._hand_on, args=(source, target), daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(CHUNK_BYTES):
                if self.fault != "hang":
                    target.sendall(content)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Reset every connection that is open."""
        cut, self._open = self._open, []
        for end in cut:
            _reset(end)

    def close(self) -> None:
        """Accept no more, and cut what is open."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()


def _reset(end: socket.socket) -> None:
    # Closing with nothing lingering sends a reset; the shutdown wakes whoever reads.
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of the broker."""
    between = Proxy(upstream)
    threading.Thread(target=between.serve, daemon=True).start()
    try:
        yield between
    finally:
        between.close()
