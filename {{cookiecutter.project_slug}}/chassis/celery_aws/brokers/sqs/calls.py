"""Requests to SQS, and to DynamoDB for remote control, from a worker's event loop, without blocking it.

boto3 blocks until a response is complete. Its timeout restarts with every read, so a slow response
can block for any time, and so can the renewal of credentials. Here curl makes the requests on the
event loop, each with a total timeout, and a thread renews the credentials. Anything that is not a
response of SQS is a `Failure`. Parts of boto3 still build, sign and parse.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import boto3
import pycurl
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, HeadersDict
from botocore.httpsession import get_cert_path
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from kombu.asynchronous.http import Request
from kombu.asynchronous.http.curl import CurlClient as KombuCurlClient

logger = logging.getLogger(__name__)

BaseClient: Any = KombuCurlClient

CONNECT_TIMEOUT_SECONDS = 5
CALL_SECONDS = 10
"""Total timeout of a request that is not a long poll."""

POLL = "ReceiveMessage"

KOMBU_CHECK_SECONDS = 1
"""Interval at which kombu's client checks its requests anyway; longer timeouts of curl need no timer."""

MAX_REQUESTS = 64
"""Maximum number of concurrent requests: a long poll per queue, and requests that delete and release."""

WAIT_FOR_CREDENTIALS_SECONDS = 5
"""How long the first request waits for credentials."""

RETRY_RENEWAL_AFTER_SECONDS = 5
"""Minimum time between attempts to renew credentials."""

BAD_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
"""Error codes of credentials that are invalid or have expired.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
"""


@dataclass(frozen=True)
class Failure:
    """A request that failed, or whose response was not from SQS."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


Answer = Mapping[str, Any]
Then = Callable[["Answer | Failure"], None]


class CurlClient(BaseClient):  # type: ignore[misc]
    """kombu's client with a fix for its timer, which treats curl's milliseconds as seconds.

    Without it, each poll would leave a timer that lives for more than an hour.
    """

    is_closed = False

    def check(self) -> None:
        """Process what has been received."""
        self._timeout_check()

    def close(self) -> None:
        """Close the client; its event loop calls this when it ends."""
        self.is_closed = True
        super().close()

    def _set_timeout(self, msecs: int) -> None:
        if 0 <= msecs < KOMBU_CHECK_SECONDS * 1000:
            self.hub.call_later(msecs / 1000, self._timeout_check)


class CredentialsMissingError(RuntimeError):
    """No valid credentials are available; the message has the reason."""


class Credentials:
    """The latest credentials, renewed in a thread because their provider may be slow."""

    def __init__(self) -> None:
        self._source: Any = None
        self._frozen: Any = None
        self._why = "not requested yet"
        self._renewing: threading.Thread | None = None
        self._renewed_at = float("-inf")

    def now(self) -> Any:
        """Return the current credentials; wait only for the first ones.

        Raises:
            CredentialsMissingError: there are none yet, or they have expired.
        """
        if self._frozen is None or self._needs_renewal():
            renewing = self._renew()
            if self._frozen is None and renewing and self._renewed_at == float("-inf"):
                renewing.join(WAIT_FOR_CREDENTIALS_SECONDS)
        if self._frozen is None or self._needs_renewal(within_seconds=0):
            raise CredentialsMissingError(self._why)
        return self._frozen

    def rejected(self) -> None:
        """Load the credentials again, since SQS rejected the current ones; a key file may have changed."""
        self._source = None
        self._renew()

    def _needs_renewal(self, within_seconds: float | None = None) -> bool:
        needed = getattr(self._source, "refresh_needed", None)
        return bool(needed and (needed() if within_seconds is None else needed(within_seconds)))

    def _renew(self) -> threading.Thread | None:
        """Start to renew the credentials, unless a renewal is in progress or was tried recently."""
        alive = self._renewing is not None and self._renewing.is_alive()
        if not alive and time.monotonic() - self._renewed_at >= RETRY_RENEWAL_AFTER_SECONDS:
            self._renewing = threading.Thread(target=self._load, name="credentials", daemon=True)
            self._renewing.start()
        return self._renewing

    def _load(self) -> None:
        try:
            source = self._source
            if source is None:
                source = self._source = boto3.Session().get_credentials()
            if source is None:
                self._why = "no credentials found"
            else:
                self._frozen = source.get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - botocore raises many types
            self._why = f"{type(error).__name__}: {error}"
        finally:
            self._renewed_at = time.monotonic()


class Calls:
    """Makes requests to a service of AWS.

    Args:
        hub: the event loop.
        region: region of AWS.
        service: name of the service in boto3.
    """

    def __init__(self, hub: Any, region: str, service: str = "sqs") -> None:
        self.hub = hub
        # Used only for its model of the service; the keys keep it from searching credentials.
        client = boto3.client(service, region_name=region, aws_access_key_id="-", aws_secret_access_key="-")  # noqa: S106
        self._service = service
        self._url = str(client.meta.endpoint_url)
        self._model = client.meta.service_model
        self._serializer = create_serializer(self._model.metadata["protocol"])
        self._parser = create_parser(self._model.metadata["protocol"])
        self._region = region
        self._credentials = Credentials()
        self._client: CurlClient | None = None
        self._open = 0
        """Number of requests without a response, except polls."""

    def call(self, operation: str, parameters: Answer, then: Then, within_seconds: float = CALL_SECONDS) -> None:
        """Make a request on the event loop.

        Args:
            operation: name of the operation, such as `ReceiveMessage`.
            parameters: parameters, as for boto3.
            then: is called with the response or a `Failure`.
            within_seconds: total timeout.
        """
        if operation != POLL:
            self._open += 1
        try:
            signed = self._signed(operation, parameters)
        except Exception as error:  # noqa: BLE001 - credentials can be missing for many reasons
            self.hub.call_later(0, self._then, operation, then, Failure(type(error).__name__, str(error)))
            return
        request = Request(
            signed.url,
            method="POST",
            headers=dict(signed.headers),
            body=signed.body,
            on_ready=partial(self._ready, operation, then),
            on_prepare=partial(_limit, within_seconds),
            follow_redirects=False,
            ca_certs=get_cert_path(True),
        )
        self._http().add_request(request)

    def call_now(self, operation: str, parameters: Answer, within_seconds: float = CALL_SECONDS) -> Answer | Failure:
        """Make a request and wait for it, when there is no event loop: the worker is stopping."""
        received, headers = io.BytesIO(), HeadersDict()
        curl = pycurl.Curl()
        try:
            signed = self._signed(operation, parameters)
            curl.setopt(pycurl.URL, signed.url)
            curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in signed.headers.items()])
            curl.setopt(pycurl.POSTFIELDS, signed.body)
            curl.setopt(pycurl.WRITEFUNCTION, received.write)
            curl.setopt(pycurl.CAINFO, get_cert_path(True))
            _limit(within_seconds, curl)
            curl.perform()
            status = curl.getinfo(pycurl.RESPONSE_CODE)
        except Exception as error:  # noqa: BLE001
            return Failure(type(error).__name__, str(error))
        finally:
            curl.close()
        return self._parsed(operation, status, headers, received.getvalue())

    def _http(self) -> CurlClient:
        if self._client is None or self._client.is_closed:
            self._client = CurlClient(self.hub, MAX_REQUESTS)
        return self._client

    def _signed(self, operation: str, parameters: Answer) -> Any:
        credentials = self._credentials.now()
        built = self._serializer.serialize_to_request(dict(parameters), self._model.operation_model(operation))
        url = f"{self._url.rstrip('/')}/"
        request = AWSRequest(method="POST", url=url, headers=built["headers"], data=built["body"])
        SigV4Auth(credentials, self._service, self._region).add_auth(request)
        return request.prepare()

    def _ready(self, operation: str, then: Then, response: Any) -> None:
        """Pass on a response; an exception in the event loop would end the worker, so all are logged."""
        if response.code == 599:  # kombu's code for errors of curl.
            answer: Answer | Failure = Failure("no response", str(getattr(response.error, "message", response.error)))
        else:
            answer = self._parsed(operation, response.code, HeadersDict(response.headers), response.body or b"")
        try:
            self._then(operation, then, answer)
        except Exception:
            logger.exception("response to %s could not be processed", operation)

    def _then(self, operation: str, then: Then, answer: Answer | Failure) -> None:
        if operation != POLL:
            self._open -= 1
        then(answer)

    def finish(self, within_seconds: float) -> None:
        """Wait for outstanding responses, except to polls, after the event loop has ended."""
        end = time.monotonic() + within_seconds
        while self._open > 0 and self._client is not None and not self._client.is_closed and time.monotonic() < end:
            self._client.check()
            time.sleep(0.01)

    def _parsed(self, operation: str, status: int, headers: Any, body: bytes) -> Answer | Failure:
        """Parse a response; return a `Failure` if it is an error or not a response of AWS."""
        shape = self._model.operation_model(operation).output_shape
        try:
            if status == 200:
                decoded = json.loads(body) if body or shape is not None else {}
                if not isinstance(decoded, dict):
                    raise ValueError(f"not a JSON object, but {type(decoded).__name__}")
            parsed = self._parser.parse({"headers": headers, "status_code": status, "body": body}, shape)
            if status == 200:
                check(operation, parsed)
                return dict(parsed)
            error = parsed.get("Error") or {}
        except Exception as unreadable:  # noqa: BLE001 - any content is possible
            return Failure(f"HTTP {status}", f"not a response of AWS: {unreadable!r:.200}")
        failure = Failure(str(error.get("Code") or f"HTTP {status}"), str(error.get("Message") or "no reason given"))
        if status in (400, 401, 403) and failure.code in BAD_CREDENTIALS:
            self._credentials.rejected()
        return failure


def check(operation: str, answer: Answer) -> None:
    """Validate the structure of a response.

    Raises:
        ValueError: a part is missing or has the wrong type.
    """
    if operation == "SendMessage" and not isinstance(answer.get("MessageId"), str):
        raise ValueError("no MessageId, so the message may not have been sent")
    wanted: dict[str, tuple[str, ...]] = {
        "ReceiveMessage": ("Messages",),
        "DeleteMessageBatch": ("Successful", "Failed"),
        "ChangeMessageVisibilityBatch": ("Successful", "Failed"),
    }
    texts = ("MessageId", "ReceiptHandle", "Body") if operation == "ReceiveMessage" else ("Id",)
    for name in wanted.get(operation, ()):
        items = answer.get(name) or []
        if not isinstance(items, list):
            raise ValueError(f"{name} is not a list")
        for item in items:
            if not isinstance(item, dict) or not all(isinstance(item.get(text), str) for text in texts):
                raise ValueError(f"an item of {name} lacks one of {', '.join(texts)}")


def _limit(seconds: float, curl: Any) -> None:
    curl.setopt(pycurl.CONNECTTIMEOUT, CONNECT_TIMEOUT_SECONDS)
    curl.setopt(pycurl.TIMEOUT_MS, int(seconds * 1000))
    curl.setopt(pycurl.TCP_KEEPALIVE, 1)
    curl.setopt(pycurl.NOSIGNAL, 1)
