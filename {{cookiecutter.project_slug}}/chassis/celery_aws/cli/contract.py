"""`contract`: check contract.json, and show the effective values of every queue and worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import click

from .. import service
from ..contract import ENVIRONMENT_IN_NAMES, Contract, Queue, advice, effective, rows
from ..terminal import Command, console, json_option, plain, table


@click.command(name="contract", cls=Command, examples=("contract", "contract --json", "contract --rules"))
@click.option("--rules", is_flag=True, help="Show all rules instead, as in docs/timeouts.md.")
@json_option
def command(rules: bool, as_json: bool) -> None:
    """Check contract.json, and show all effective values.

    Exits with 2 if the contract breaks rules.
    """
    held = service.contract()
    if rules:
        click.echo(rows(held.broker))
        return
    if as_json:
        named = replace(held, queues=tuple(_named(held, queue) for queue in held.queues))
        click.echo(json.dumps(asdict(named)))
        return
    data = contract_data()
    whole = effective(data)
    _print("QUEUE", held.queues, whole["queues"])
    _print("WORKER", held.workers, whole["workers"])
    for queue in (_named(held, queue) for queue in held.queues):
        click.echo(f"{queue.name}: {queue.queue_name}, dead-letter queue {queue.dead_letter_queue_name}")
    for queue in held.queues:
        says = f"{queue.seconds_to_dead_letter} s after its first failure, plus the time that its attempts take"
        click.echo(f"{queue.name}: a task that always fails is dead-lettered {says}")
    for pattern, name in held.routes.items():
        click.echo(f"tasks named {pattern} go to {name}")
    others = "are refused" if held.refuse_unrouted_tasks else f"go to {held.default_queue.name}"
    click.echo(f"tasks outside the queues' modules{' and these routes' if held.routes else ''} {others}")
    recommend(data)


NOT_IN_TABLE = ("name", "queue_name", "dead_letter_queue_name")
"""Names are printed on lines of their own, where none is wrapped."""
UNLIMITED_WIDTH_CHARACTERS = 100_000


def contract_data() -> dict[str, Any]:
    """Return the contract as it is written, without defaults."""
    data: dict[str, Any] = json.loads(service.find_contract().read_text(encoding="utf-8"))
    return data


def recommend(data: Mapping[str, Any]) -> None:
    """Print what is recommended to change in a contract."""
    for item in advice(data):
        click.echo(f"Recommended: {item}", err=True)


def _named(held: Contract, queue: Queue) -> Queue:
    """Return a queue with its names at the broker, in which a placeholder stands for the environment."""
    return replace(
        queue,
        queue_name=held.queue_name(queue, ENVIRONMENT_IN_NAMES),
        dead_letter_queue_name=held.dead_letter_queue_name(queue, ENVIRONMENT_IN_NAMES),
    )


def _print(title: str, items: Sequence[Any], given: Sequence[Mapping[str, Any]]) -> None:
    """Print a column for each queue or worker, and a row for each field that one of them has.

    Args:
        title: heading of the column with the names of the fields.
        items: the queues or workers, which have the fields of every broker and compute.
        given: the same, with the fields of this contract only.
    """
    known = {name for item in given for name in item}
    made = table()
    made.add_column(title, no_wrap=True)
    for item in items:
        made.add_column(item.name, justify="right", overflow="fold")
    for field in fields(items[0]):
        if field.name in known and field.name not in NOT_IN_TABLE:
            made.add_row(field.name, *(plain(_text(getattr(item, field.name))) for item in items))
    to = console()
    if not to.is_terminal:  # So that each row is a line for grep.
        to.width = UNLIMITED_WIDTH_CHARACTERS
    to.print(made)


def _text(value: object) -> str:
    """Return a value as people write it in contract.json."""
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, bool):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
