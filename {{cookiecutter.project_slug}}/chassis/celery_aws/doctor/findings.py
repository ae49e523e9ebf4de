"""What `doctor` finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from .. import options
from ..contract import Contract

MAX_SKEW_SECONDS = 60
"""AWS refuses requests five minutes off."""


@dataclass(frozen=True)
class Finding:
    """The answer to one check."""

    code: str
    """Stable; docs/operations.md lists them all."""
    subject: str
    """What was looked at: a queue, say."""
    is_well: bool | None
    """Nothing if it could not be looked at."""
    says: str
    advice: str = ""
    """What to do about it."""


def well(code: str, subject: str, says: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(code, subject, True, says)


def wrong(code: str, subject: str, says: str, advice: str) -> Finding:
    """Return a finding that something is not as it should be."""
    return Finding(code, subject, False, says, advice)


def unknown(code: str, subject: str, says: str, advice: str) -> Finding:
    """Return a finding that something could not be looked at."""
    return Finding(code, subject, None, says, advice)


def clock(date: str, now: float, whose: str = "AWS") -> Finding:
    """Compare this machine's clock with the `Date` of an answer (D104)."""
    skew_seconds = now - parsedate_to_datetime(date).timestamp()
    says = f"{abs(skew_seconds):.0f} s {'ahead of' if skew_seconds > 0 else 'behind'} {whose}"
    if abs(skew_seconds) <= MAX_SKEW_SECONDS:
        return well("D104", "clock", says)
    return wrong("D104", "clock", says, "set the clock (chrony, ntpd); AWS refuses requests that are 300 s off")


def orphan(short: str, name: str, messages: Mapping[str, int], why_unknown: str = "") -> Finding:
    """Return a finding that a queue is at the broker and not in the contract (D213).

    Args:
        short: the queue's name in the contract that it was in; with `-dlq` for a dead-letter queue.
        name: the queue's name at the broker.
        messages: how many messages it holds, by their state.
        why_unknown: why the messages could not be counted, in which case there are no numbers.
    """
    subject = f"{short.removesuffix('-dlq')} dlq" if short.endswith("-dlq") else short
    section = "docs/operations.md, Removing or renaming a queue"
    says = f"{name} is not in the contract"
    if why_unknown:
        return wrong("D213", subject, f"{says}; its messages were not counted: {why_unknown}", f"see {section}")
    if not any(messages.values()):
        return wrong("D213", subject, f"{says}; it is empty", f"delete it: {section}")
    states = ", ".join(f"{count:,} {state}" for state, count in messages.items())
    advice = f"no worker processes them: put the queue back into contract.json, or empty and delete it: {section}"
    total = sum(messages.values())
    holds = f"it holds {total:,} {'message' if total == 1 else 'messages'} ({states})"
    return wrong("D213", subject, f"{says}; {holds}", advice)


def result_findings(contract: Contract, client: Callable[[str], Any]) -> Iterator[Finding]:
    """Look at the result backend; nothing is found where the service keeps no results.

    Args:
        contract: of the service.
        client: returns a boto3 client of a service of AWS.
    """
    if contract.results != "none":
        yield from options.load(__package__, contract.results).findings(contract, client)
