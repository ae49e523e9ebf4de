"""Measures speed, and writes the tables of docs/benchmarks.md: `make bench`.

Every figure is a ratio to an alternative in the same run, a count of requests, or has a limit with room for slower
machines, so that it holds elsewhere. Benchmarks that are named are run alone.

    python -m benchmarks [--keep] [delivery] [worker] [recovery] [image]
    python -m benchmarks [--keep] peers     # only if named: other task queues, see benchmarks/peers
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.services import end_on_sigterm
from tools.figures import CELLS, Figure, keep

TEMPLATE = Path(__file__).parents[1]
NAMES = ("delivery", "worker", "recovery", "image")


def show(figures: list[Figure], console: Console) -> None:
    """Print figures as a table."""
    table = Table(*CELLS)
    for figure in figures:
        *others, target = figure.cells
        table.add_row(*others, target if figure.is_met else f"[bold red]{target}[/]")
    console.print(table)


def main(arguments: list[str]) -> None:
    """Measure, print, and keep if told so; exit with 1 if a target is missed."""
    if "peers" in arguments:
        if set(arguments) & set(NAMES):
            sys.exit("peers is measured alone")
        importlib.import_module("benchmarks.peers.__main__").main([each for each in arguments if each != "peers"])
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all of them unless named")
    parser.add_argument("--keep", action="store_true", help="write docs/figures.json, and the tables made of it")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join((*NAMES, 'peers'))}")
    console = Console(width=140)
    began = time.monotonic()
    measured = {}
    for name in asked.names or NAMES:
        if name == "image" and not shutil.which("podman"):
            console.print("no podman here: image not measured")
            continue
        measured[name] = importlib.import_module(f"benchmarks.{name}").measure()
        show(measured[name], console)
    console.print(f"measured in {(time.monotonic() - began) / 60:.1f} minutes")
    if asked.keep:
        keep(TEMPLATE, measured)
    sys.exit(not all(figure.is_met for figures in measured.values() for figure in figures))


if __name__ == "__main__":
    end_on_sigterm()
    main(sys.argv[1:])
