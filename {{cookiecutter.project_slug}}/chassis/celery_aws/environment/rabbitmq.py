"""Access to an environment on RabbitMQ: connections and the management API."""

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

# The published type lacks what is overridden here.
BaseTransport: Any = pyamqp.Transport


class BrokerError(OSError):
    """A request to the broker failed; the message says what to do."""


class Transport(BaseTransport):  # type: ignore[misc]
    """A transport with the service's channels that does not declare queues, which commands must not do."""

    Connection = transport.Connection


class Environment(Base):
    """An environment on RabbitMQ. It needs the service's environment variables of the broker."""

    @cached_property
    def variables(self) -> Variables:
        """The environment variables of the broker.

        Raises:
            SettingsError: variables are missing or invalid.
        """
        return read_settings(Variables)[0]

    @property
    def virtual_host(self) -> str:
        """The virtual host of this environment."""
        return unquote(urlsplit(self.variables.broker_url).path[1:]) or "/"

    def connect(self) -> Any:
        """Connect as the service does, but declare nothing.

        Raises:
            BrokerError: the connection failed.
        """
        conf = celery_settings(self.contract, self.variables, self.environment)
        connection = Connection(
            conf["broker_url"],
            ssl=conf["broker_use_ssl"],
            connect_timeout=conf["broker_connection_timeout"],
            # A command may be idle for long, for example while it prompts.
            heartbeat=0,
            transport=Transport,
            transport_options=conf["broker_transport_options"],
        )
        connection.userid = self.variables.broker_username
        connection.password = self.variables.broker_password.get_secret_value()
        with explained():
            return connection.transport.establish_connection()

    def ask(self, path: str, *more: str) -> Any:
        """Send a GET request to the management API.

        Args:
            path: path of a collection, such as `vhosts`.
            more: further path segments, which are quoted.

        Raises:
            BrokerError: the API is unavailable or refused the request.
        """
        return self.ask_with_date(path, *more)[0]

    def ask_with_date(self, path: str, *more: str) -> tuple[Any, str]:
        """Send a GET request to the management API; return the response and its `Date` header."""
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
                raise BrokerError(f"the management API at {base} does not respond: {why}") from None


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn errors of the broker into explanations.

    Raises:
        BrokerError: says what the error means and what to do.
    """
    try:
        yield
    except BrokerError:
        raise
    except (AMQPError, OSError) as error:
        raise BrokerError(explanation(error)) from error


def explanation(error: Exception) -> str:
    """Return what an error of the broker or the connection means and what to do."""
    reply = str(getattr(error, "reply_text", "") or error) or type(error).__name__  # A timeout has no text.
    if isinstance(error, ssl.SSLError):
        return f"the certificate of the broker in BROKER_URL is not trusted: {reply}"
    if isinstance(error, AccessRefused) and "Login" in reply:
        return f"the broker does not accept BROKER_USERNAME and BROKER_PASSWORD: {reply}"
    if isinstance(error, AccessRefused):
        return f"the user lacks a permission: {reply}; docs/operations.md lists what each command needs"
    if isinstance(error, NotAllowed):
        return f"the virtual host in BROKER_URL does not exist, or the user has no access to it: {reply}"
    if isinstance(error, NotFound):
        return f"{reply}. Check BROKER_URL; workers and producers declare the queues when they connect"
    if isinstance(error, AMQPError):
        return f"error of the broker: {reply}"
    return f"the broker in BROKER_URL does not respond: {reply}"


def _refused(error: HTTPError, url: str) -> str:
    if error.code == 401:
        return "the management API does not accept BROKER_USERNAME and BROKER_PASSWORD, or the user lacks a tag for it"
    return f"the management API responded {error.code} {error.reason} to {urlsplit(url).path}"
