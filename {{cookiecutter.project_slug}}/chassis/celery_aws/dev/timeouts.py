"""Writes the numbers of every queue into README.md; `make README.md` runs it whenever the contract has changed."""

from __future__ import annotations

from typing import Any

from ..contract import read
from . import emulator

TARGET = emulator.PROJECT / "README.md"
BEGIN = "<!-- Made from contract.json by `make README.md`: -->\n"
END = "<!-- until here -->\n"

ROWS = {
    "soft_limit_seconds": "a task is told to finish",
    "hard_limit_seconds": "it is killed, and comes back",
    "max_countdown_seconds": "the longest countdown",
    "visibility_timeout_seconds": "others get what a worker still holds",
    "retry_backoff_seconds": "the first pause after a failure; it doubles",
    "max_receive_count": "deliveries; then it is a dead letter",
    "retention_seconds": "the longest it waits",
}
SERVICE_ROWS = {
    "dead_letter_retention_seconds": "the longest a dead letter is kept",
    "soft_shutdown_seconds": "a worker told to stop gives back what still runs",
    "stop_timeout_seconds": "it is killed",
}
DAY_SECONDS = 86400


def said(number: float) -> str:
    """Write a number, and days as such."""
    days = f", {number / DAY_SECONDS:g} days" if number >= DAY_SECONDS else ""
    return f"{number}{days}"


def table(contract: Any) -> str:
    """Return the table in Markdown: a row for each number, a column for each queue."""
    rows = [["", "", *(queue.name for queue in contract.queues)], ["---"] * (2 + len(contract.queues))]
    for name, what in {**ROWS, **SERVICE_ROWS}.items():
        having = contract.queues if name in ROWS else [contract] * len(contract.queues)
        rows.append([f"`{name}`", what, *(said(getattr(one, name)) for one in having)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def text() -> str:
    """Return README.md with the contract's numbers; as it is, if its owner has taken the lines out that hold them.

    Raises:
        ContractError: the contract breaks rules.
    """
    readme = TARGET.read_text(encoding="utf-8")
    # From the end: what people say of their service, at its beginning, may look like anything.
    before, begin, rest = readme.rpartition(BEGIN)
    _, end, after = rest.partition(END)
    numbers = table(read(emulator.PROJECT / "contract.json"))
    return f"{before}{begin}\n{numbers}\n{end}{after}" if begin and end else readme


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
