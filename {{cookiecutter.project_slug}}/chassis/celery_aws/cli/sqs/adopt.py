"""`adopt`: propose the entries of contract.json for queues that exist already."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import click

from ... import service
from ...contract import Problem, problems
from ...environment import find
from ...queues.sqs.existing import Existing, named_apart, read
from ...terminal import Command, environment_option, json_option


@click.command(
    name="adopt",
    cls=Command,
    examples=("adopt celery legacy-low", "adopt https://sqs.eu-west-1.amazonaws.com/123456789012/celery"),
)
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@environment_option
@json_option
def command(queues: tuple[str, ...], environment: str, as_json: bool) -> None:
    """Print contract entries for existing queues.

    It reads queues, by name or URL, and also prints Terraform's import blocks. It changes nothing. Requires
    sqs:GetQueueUrl, sqs:GetQueueAttributes and sqs:ListDeadLetterSourceQueues on the queues.
    """
    env = find(environment)
    data = json.loads(service.find_contract().read_text(encoding="utf-8"))
    defaults = {"fifo": env.contract.broker == "sqs-fifo", **data["queue_defaults"]}
    found = named_apart([read(env, queue, defaults) for queue in queues])
    entries = [queue.entry for queue in found]
    if as_json:
        click.echo(json.dumps(entries))
        return
    click.echo('Entries for "queues" in contract.json:')
    click.echo("")
    click.echo(",\n".join(f"    {json.dumps(entry)}" for entry in entries))
    blocks = [block for queue in found for block in _import_blocks(queue)]
    if blocks:
        click.echo("\nImport blocks for terraform/, to delete after the next apply:\n")
        click.echo("\n".join(blocks))
    _print_decisions(found, {queue.name for queue in env.contract.queues})
    for problem in _problems(data, entries):
        click.echo(f"to decide: {problem}", err=True)


def _print_decisions(found: Sequence[Existing], names: Collection[str]) -> None:
    """Print what an operator has to decide, on standard error."""
    for queue in found:
        name, decisions = queue.entry["name"], []
        if queue.sources:
            sources = ", ".join(queue.sources)
            decisions.append(f"is the dead-letter queue of {sources}; a worker would run their failed tasks again")
        elif not queue.dead_letter_url:
            decisions.append(_without_dead_letters(queue.entry))
        if name in names:
            decisions.append("is in the contract already; its entry replaces that, or needs another name")
        for loss in queue.losses:
            decisions.append(f'loses {loss}; to keep it, add "managed": false')
        for decision in decisions:
            click.echo(f"to decide: queue {name} {decision}", err=True)


def _without_dead_letters(entry: Mapping[str, Any]) -> str:
    if entry.get("managed", True):
        return "has no dead-letter queue; Terraform creates one"
    return "has no dead-letter queue, and needs one; ask its owner, and set dead_letter_queue_name"


def _import_blocks(queue: Existing) -> Iterator[str]:
    """Yield import blocks for a queue and its dead-letter queue, if Terraform can manage them."""
    if not queue.entry.get("managed", True):
        return
    for resource, url in (("main", queue.url), ("dead_letters", queue.dead_letter_url)):
        if url:
            to = f'module.service.aws_sqs_queue.{resource}["{queue.entry["name"]}"]'
            yield f'import {{\n  to = {to}\n  id = "{url}"\n}}\n'


def _problems(data: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Return what breaks rules in the contract with these entries, in place of queues of the same names."""
    adopted = {entry["name"] for entry in entries}
    others = [queue for queue in data["queues"] if queue["name"] not in adopted]
    return problems({**data, "queues": [*others, *entries]})
