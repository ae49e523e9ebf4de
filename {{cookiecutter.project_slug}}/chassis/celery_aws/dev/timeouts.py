"""Updates the table of timeouts in README.md; `make README.md` runs it after the contract has changed."""

from __future__ import annotations

from typing import Any

from ..contract import read
from . import emulator

TARGET = emulator.PROJECT / "README.md"
BEGIN = "<!-- Made from contract.json by `make README.md`: -->\n"
END = "<!-- until here -->\n"

ROWS = {
    "soft_limit_seconds": "`SoftTimeLimitExceeded` is raised in the task",
    "hard_limit_seconds": "the task is killed and redelivered",
    "max_countdown_seconds": "longest countdown",
    "visibility_timeout_seconds": "a message that a worker still holds is redelivered",
    "retry_backoff_seconds": "backoff after the first failure; it doubles with each attempt",
    "max_receive_count": "attempts before a message is dead-lettered",
    "retention_seconds": "retention of messages",
}
SERVICE_ROWS = {
    "dead_letter_retention_seconds": "retention of dead-letter messages",
    "soft_shutdown_seconds": "a stopping worker releases running tasks",
    "stop_timeout_seconds": "a stopping worker is killed",
}
DAY_SECONDS = 86400


def formatted(number: float) -> str:
    """Return a number as text; a number of seconds from a day on also in days."""
    days = f", {number / DAY_SECONDS:g} days" if number >= DAY_SECONDS else ""
    return f"{number}{days}"


def table(contract: Any) -> str:
    """Return the table in Markdown, with a row per field and a column per queue."""
    rows = [["", "", *(queue.name for queue in contract.queues)], ["---"] * (2 + len(contract.queues))]
    for name, what in {**ROWS, **SERVICE_ROWS}.items():
        sections = contract.queues if name in ROWS else [contract] * len(contract.queues)
        rows.append([f"`{name}`", what, *(formatted(getattr(section, name)) for section in sections)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def text() -> str:
    """Return the text of README.md with an updated table; unchanged if the markers were removed.

    Raises:
        ContractError: the contract breaks rules.
    """
    readme = TARGET.read_text(encoding="utf-8")
    # Search from the end: the description at the beginning may contain anything.
    before, begin, rest = readme.rpartition(BEGIN)
    _, end, after = rest.partition(END)
    numbers = table(read(emulator.PROJECT / "contract.json"))
    return f"{before}{begin}\n{numbers}\n{end}{after}" if begin and end else readme


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
