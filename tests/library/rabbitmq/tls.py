"""A server that TLS is tried on."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


@dataclass
class Server:
    """A server on this machine, which listens and says nothing."""

    port: int
    certificate: Path
    """Who vouches for it, where clients are to trust that."""
    heard: list[bytes] = field(default_factory=list)
    """What clients began with that took its certificate."""


def certify(name: str, certificate: Path, key_file: Path) -> None:
    """Write a certificate for a host of that name, which its own issuer vouches for, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@contextlib.contextmanager
def server(folder: Path, name: str) -> Iterator[Server]:
    """Listen with a certificate for a host of that name, which is made in a folder."""
    files = folder / "certificate.pem", folder / "key.pem"
    certify(name, *files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Server(listener.getsockname()[1], files[0])

        def serve() -> None:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:  # The test is over.
                    return
                with contextlib.suppress(OSError), context.wrap_socket(near, server_side=True) as secured:
                    found.heard.append(secured.recv(8))  # And no word more: what follows is an error, but another.

        threading.Thread(target=serve, daemon=True).start()
        yield found
