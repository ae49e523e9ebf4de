"""The page that compares: nothing is said of others without a source, nor of this without a file that shows it."""

from __future__ import annotations

import json
import re

import pytest
from conftest import TEMPLATE

from tools import figures

PAGE = TEMPLATE / "docs" / "comparison.md"
SOURCE = re.compile(r"\[\^([\w-]+)\]")
DEFINITION = re.compile(r"^\[\^([\w-]+)\]: ((?:.+\n)(?: {4}.+\n)*)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]+)")


def tables(text):
    """Return each table as its rows of cells, the first of them its heads."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in row[1:-1].split("|")] for row in table.splitlines()] for table in found]


def mistakes(text):
    """Return what a page says without showing it."""
    sources = dict(DEFINITION.findall(text))
    told = DEFINITION.sub("", text)
    for name in sorted(set(SOURCE.findall(told)) ^ sources.keys()):
        yield f"{name} is either no source or not used"
    for name, source in sources.items():
        if not re.search(r"<https://[^\s>]+>", source):
            yield f"{name} has no address"
    for heads, _, *rows in tables(told):
        if heads[:2] != ["", "here"]:
            yield f"a table begins with {heads[:2]}"
        for feature, *cells in rows:
            if len(cells) != len(heads) - 1:
                yield f"{feature}: {len(cells)} cells for {heads}"
            here, *others = cells
            links = LINK.findall(here)
            if not links or not all((PAGE.parent / link).exists() for link in links):
                yield f"{feature}, here: {here}"
            yield from (f"{feature}: {cell or 'nothing'}" for cell in others if not SOURCE.search(cell))


def test_every_cell_of_others_has_a_source_and_each_of_ours_a_file():
    text = PAGE.read_text(encoding="utf-8")
    assert sum(len(rows) for rows in tables(text)) > 50
    assert list(mistakes(text)) == []


def test_requests_that_were_measured_are_those_of_the_benchmark():
    kept = json.loads((TEMPLATE / "docs" / "figures.json").read_text(encoding="utf-8"))
    (idle,) = (figure for figure in figures.read(kept) if figure.label == "requests of an idle worker")
    told = re.findall(r"\| ([\d,.]+)(?:, measured| an hour) \(\[benchmark\]", PAGE.read_text(encoding="utf-8"))
    assert told == [figures.number(idle.measured)] * 2


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("yes[^a]", "yes", "tea: yes"),
        ("yes[^a]", "", "tea: nothing"),
        ("[^a] |", "[^b] |", "a is either no source or not used"),
        ("[^a]: A page, <https://a.example/b>", "[^a]: A page", "a has no address"),
        ("[test](decisions.md)", "yes", "tea, here: yes"),
        ("decisions.md", "gone.md", "tea, here: [test](gone.md)"),
        ("| [test]", "| | [test]", "tea: 3 cells for"),
        ("| here |", "| there |", "a table begins with"),
    ],
)
def test_each_mistake_is_seen(right, wrong, said):
    page = "| | here | them |\n|---|---|---|\n| tea | [test](decisions.md) | yes[^a] |\n\n[^a]: A page, <https://a.example/b>\n"
    assert list(mistakes(page)) == []
    assert any(mistake.startswith(said) for mistake in mistakes(page.replace(right, wrong)))
