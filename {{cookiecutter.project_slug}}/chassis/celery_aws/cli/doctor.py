"""`doctor`: compare an environment with the contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Console

from .. import doctor
from ..doctor.findings import Finding
from ..environment import find
from ..terminal import Command, console, live_options, plain, table
from ..version import __version__


@click.command(
    name="doctor",
    cls=Command,
    examples=("doctor", "doctor --environment production --all", "doctor --role worker --json"),
)
@click.option(
    "--role",
    type=click.Choice(list(doctor.ROLES)),
    default="operator",
    show_default=True,
    help="Check its permissions.",
)
@click.option("--all", "show_all", is_flag=True, help="Also show checks that passed.")
@live_options
def command(role: str, show_all: bool, environment: str, as_json: bool) -> None:
    """Compare an environment with the contract.

    It shows how to fix each difference. It changes nothing and sends no messages. Exits with 1 if a check
    failed, with 2 if a check could not run. docs/operations.md lists the checks by code.
    """
    with Console(stderr=True).status("checking"):
        found = list(doctor.findings(find(environment), role))
    _report(found, as_json=as_json, show_all=show_all)


def _report(found: Sequence[Finding], *, as_json: bool, show_all: bool) -> None:
    """Print the findings, and exit with 1 if a check failed, or with 2 if a check could not run."""
    made = table()
    for title in ("CODE", "ABOUT"):
        made.add_column(title, no_wrap=True)
    made.add_column("FOUND", overflow="fold")
    for finding in found:
        if not finding.is_well or show_all:
            style = "green" if finding.is_well else "yellow" if finding.is_well is None else "red"
            mark = "" if finding.is_well else " ?" if finding.is_well is None else " !"
            text = plain(finding.says)
            if finding.advice:
                text.append(f"\n-> {finding.advice}", style="dim")
            made.add_row(f"[{style}]{finding.code}{mark}[/]", plain(finding.subject), text)
    counts = [sum(finding.is_well is state for finding in found) for state in (True, False, None)]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found]))
    else:
        if made.row_count:
            console().print(made)
        done = f"{counts[0]} checks passed, {counts[1]} failed, {counts[2]} could not run"
        click.echo(f"{done} (celery_aws {__version__})")
    raise SystemExit(1 if counts[1] else 2 if counts[2] else 0)
