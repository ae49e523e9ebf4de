"""The findings of `doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from .. import options
from ..aws import UNACCEPTED, error_code, explanation
from ..contract import Contract
from ..pausing import Pause, described

MAX_SKEW_SECONDS = 60
"""Maximum deviation of the clock; AWS refuses requests at 300 seconds."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    code: str
    """Stable code; docs/operations.md lists all codes."""
    subject: str
    """What was checked, such as a queue."""
    is_well: bool | None
    """None if the check could not run."""
    says: str
    advice: str = ""
    """How to fix the problem."""


def well(code: str, subject: str, says: str) -> Finding:
    """Return a finding of a check that passed."""
    return Finding(code, subject, True, says)


def wrong(code: str, subject: str, says: str, advice: str) -> Finding:
    """Return a finding of a check that failed."""
    return Finding(code, subject, False, says, advice)


def unknown(code: str, subject: str, says: str, advice: str) -> Finding:
    """Return a finding of a check that could not run."""
    return Finding(code, subject, None, says, advice)


def failed(code: str, subject: str, error: Exception, advice: str) -> Finding:
    """Return a finding of a request to AWS that failed: the check failed, or could not run.

    Args:
        code: code of the check.
        subject: what was checked.
        error: the error of the request.
        advice: how to fix the problem if AWS refused the request.

    Raises:
        Exception: `error`, if it is neither of AWS nor of this machine.
    """
    if not (reason := explanation(error)):
        raise error
    if not isinstance(error, ClientError):
        return unknown(code, subject, reason, "log in, or check the network")
    if error_code(error) in UNACCEPTED:
        return unknown(code, subject, reason, "log in again")
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return unknown(code, subject, reason, "try again in a minute")
    return wrong(code, subject, reason, advice)


def clock(date: str, now: float, whose: str = "AWS") -> Finding:
    """Compare this machine's clock with the `Date` header of a response (D104)."""
    skew_seconds = now - parsedate_to_datetime(date).timestamp()
    says = f"{abs(skew_seconds):.0f} s {'ahead of' if skew_seconds > 0 else 'behind'} {whose}"
    if abs(skew_seconds) <= MAX_SKEW_SECONDS:
        return well("D104", "clock", says)
    return wrong("D104", "clock", says, "synchronize the clock (chrony, ntpd); AWS refuses requests at 300 s")


def is_paused(queue: str, pause: Pause) -> Finding:
    """Return a finding that no worker takes messages of a queue, because it is paused (D501)."""
    return wrong("D501", queue, described(pause), f"resume it: queues resume {queue}")


def orphan(short: str, name: str, messages: Mapping[str, int], why_unknown: str = "") -> Finding:
    """Return a finding that a queue of the broker is not in the contract (D213).

    Args:
        short: former name of the queue in the contract, with `-dlq` for a dead-letter queue.
        name: name of the queue at the broker.
        messages: number of messages, by state.
        why_unknown: why the messages could not be counted; empty if they were.
    """
    subject = f"{short.removesuffix('-dlq')} dlq" if short.endswith("-dlq") else short
    section = "docs/operations.md, Removing or renaming a queue"
    says = f"{name} is not in the contract"
    if why_unknown:
        return wrong("D213", subject, f"{says}; its messages could not be counted: {why_unknown}", f"see {section}")
    if not any(messages.values()):
        return wrong("D213", subject, f"{says}; it is empty", f"delete it: {section}")
    states = ", ".join(f"{count:,} {state}" for state, count in messages.items())
    advice = f"no worker processes them: put the queue back into contract.json, or empty and delete it: {section}"
    total = sum(messages.values())
    holds = f"it holds {total:,} {'message' if total == 1 else 'messages'} ({states})"
    return wrong("D213", subject, f"{says}; {holds}", advice)


def result_findings(contract: Contract, client: Callable[[str], Any]) -> Iterator[Finding]:
    """Check the result backend, if the service has one.

    Args:
        contract: the contract of the service.
        client: returns a boto3 client of an AWS service.
    """
    if contract.results != "none":
        yield from options.load(__package__, contract.results).findings(contract, client)
