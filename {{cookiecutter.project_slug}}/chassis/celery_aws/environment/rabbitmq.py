"""One environment of the service at its broker: connections, and the management API."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import urllib.request
from collections.abc import Iterator
from functools import cached_property
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, NotFound
from kombu import Connection
from kombu.transport import pyamqp

from ..brokers.rabbitmq import Variables, celery_settings, transport
from ..settings import read_settings
from . import Environment as Base

# Its published type knows little of it.
BaseTransport: Any = pyamqp.Transport


class BrokerError(OSError):
    """The broker could not be asked, or says no; the message says what to do."""


class Transport(BaseTransport):  # type: ignore[misc]
    """kombu's own, since the service's would declare what the commands are to look for; with the service's channels."""

    Connection = transport.Connection


class Environment(Base):
    """Where a command looks. It needs those variables of the service that lead to its broker."""

    @cached_property
    def variables(self) -> Variables:
        """Where the broker is, and who asks.

        Raises:
            SettingsError: variables are missing or wrong.
        """
        return read_settings(Variables)[0]

    @property
    def virtual_host(self) -> str:
        """The virtual host, which is this environment's own."""
        return unquote(urlsplit(self.variables.broker_url).path[1:]) or "/"

    def connect(self) -> Any:
        """Connect as the service does, but declare nothing.

        Raises:
            BrokerError: that cannot be done.
        """
        conf = celery_settings(self.contract, self.variables, self.environment)
        connection = Connection(
            conf["broker_url"],
            ssl=conf["broker_use_ssl"],
            connect_timeout=conf["broker_connection_timeout"],
            # What is long looked at, or asked about, is no reason to lose the connection.
            heartbeat=0,
            transport=Transport,
            transport_options=conf["broker_transport_options"],
        )
        connection.userid = self.variables.broker_username
        connection.password = self.variables.broker_password.get_secret_value()
        with explained():
            return connection.transport.establish_connection()

    def ask(self, path: str, *more: str) -> Any:
        """Ask the management API.

        Args:
            path: which of its collections, or what is in one; `vhosts` for example.
            more: names that follow, as they are.

        Raises:
            BrokerError: it cannot be reached, or says no.
        """
        return self.ask_with_date(path, *more)[0]

    def ask_with_date(self, path: str, *more: str) -> tuple[Any, str]:
        """Ask the management API; return when it answered, too."""
        held = self.variables
        base = held.broker_management_url or f"https://{urlsplit(held.broker_url).hostname}"
        given = f"{held.broker_username}:{held.broker_password.get_secret_value()}"
        url = "/".join((base.rstrip("/"), "api", path, *(quote(name, safe="") for name in more)))
        token = base64.b64encode(given.encode()).decode()
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})  # noqa: S310 - see settings
        with explained():
            try:
                with urllib.request.urlopen(request, timeout=25) as answer:  # noqa: S310
                    return json.loads(answer.read()), answer.headers.get("Date") or ""
            except HTTPError as error:
                raise BrokerError(_refused(error, url)) from None
            except (OSError, ValueError) as error:
                why = getattr(error, "reason", error)
                raise BrokerError(f"the management API at {base} does not answer: {why}") from None


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say what an error of the broker means.

    Raises:
        BrokerError: with what to do about it.
    """
    try:
        yield
    except BrokerError:
        raise
    except (AMQPError, OSError) as error:
        raise BrokerError(explanation(error)) from error


def explanation(error: Exception) -> str:
    """Return what an error of the broker, or on the way to it, means and what to do."""
    said = str(getattr(error, "reply_text", "") or error or repr(error))
    if isinstance(error, ssl.SSLError):
        return f"BROKER_URL leads to a broker whose certificate is not to be trusted: {said}"
    if isinstance(error, AccessRefused) and "Login" in said:
        return f"the broker does not take BROKER_USERNAME and BROKER_PASSWORD: {said}"
    if isinstance(error, AccessRefused):
        return f"this user may not do that: {said}; docs/operations.md lists what each command needs"
    if isinstance(error, NotAllowed):
        return f"the virtual host in BROKER_URL is not there, or not for this user: {said}"
    if isinstance(error, NotFound):
        return f"{said}. Is BROKER_URL right, and has a worker or a sender ever connected, which declares the queues?"
    if isinstance(error, AMQPError):
        return f"the broker says: {said}"
    return f"the broker in BROKER_URL does not answer: {said}"


def _refused(error: HTTPError, url: str) -> str:
    if error.code == 401:
        return "the management API does not take BROKER_USERNAME and BROKER_PASSWORD, or the user has no tag for it"
    return f"the management API says {error.code} {error.reason} to {urlsplit(url).path}"
