"""What docs/benchmarks.md shows as measured is what benchmarks have measured, and meets its targets."""

from __future__ import annotations

import json

import pytest
from conftest import TEMPLATE

from benchmarks.__main__ import NAMES
from tools import figures
from tools.figures import Figure

FAST = Figure("tasks <1>", 287.123456, "a second", "≥ 10 times", "the guides' settings", 4.2)
SLOW = Figure("bake", 0.612, "s", "≤ 2 times", "one file", 0.36)
ALONE = Figure("requests", 0.1, "a task", "≤ 0.11")
EMPTY = "# Title\n\n<!-- figures -->\n<!-- end of figures -->\n\nText\n"


def shown(folder):
    """Return the page that `make bench` writes."""
    return (folder / figures.PAGE).read_text(encoding="utf-8")


def kept(folder):
    return json.loads((folder / "docs" / "figures.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / figures.PAGE).parent.mkdir()
    (tmp_path / figures.PAGE).write_text(EMPTY)
    return tmp_path


def test_table_is_that_of_the_figures_that_were_kept():
    found = shown(TEMPLATE)
    assert found == figures.page(kept(TEMPLATE), found)


def test_readme_when_it_names_figures_then_they_are_measured():
    readme = (TEMPLATE / "README.md").read_text(encoding="utf-8")
    of_tasks = [figure for figure in figures.read(kept(TEMPLATE)) if figure.label == "tasks of 10 ms"]
    assert len(of_tasks) == 2
    assert all(f"{figures.number(figure.ratio)} times" in readme for figure in of_tasks)


def test_every_benchmark_has_been_run_and_meets_its_targets():
    assert sorted(kept(TEMPLATE)["figures"]) == sorted(NAMES)
    told = [figure["met"] for of_one in kept(TEMPLATE)["figures"].values() for figure in of_one]
    assert told
    assert [figure.label for figure in figures.read(kept(TEMPLATE)) if not figure.is_met] == []
    assert all(told)


@pytest.mark.parametrize(
    ("target", "alternative", "is_met"),
    [
        ("≤ 2", None, True),
        ("≤ 1.99", None, False),
        ("≥ 2", None, True),
        ("≥ 2.01", None, False),
        ("≤ 0.5 times", 4, True),
        ("≤ 0.49 times", 4, False),
        ("≥ 4 times", 0.5, True),
        ("≥ 4.1 times", 0.5, False),
    ],
)
def test_a_target_is_met_or_not(target, alternative, is_met):
    assert Figure("tasks", 2, "s", target, "another", alternative).is_met is is_met


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.1, "0.10"),
        (0.0998, "0.10"),
        (0.998, "1.0"),
        (0.0612, "0.061"),
        (2.25, "2.2"),
        (68.6, "69"),
        (287.4, "287"),
        (12345, "12,345"),
    ],
)
def test_numbers_have_two_digits_that_count(value, text):
    assert figures.number(value) == text


def test_figures_are_shown_anew_with_every_run(folder):
    figures.keep(folder, {"bake": [SLOW], "delivery": [FAST, ALONE]})
    first = shown(folder)
    assert figures.read(kept(folder)) == [SLOW, FAST, ALONE]
    where = f"Python {kept(folder)['python']}, {kept(folder)['processors']} processors"
    assert first.startswith("# Title\n\n<!-- figures -->\n")
    assert first.endswith("<!-- end of figures -->\n\nText\n")
    assert where in first
    assert "| tasks <1> | 287 a second | 4.2, the guides' settings | 68 times | ≥ 10 times |\n" in first
    assert "| bake | 0.61 s | 0.36, one file | 1.7 times | ≤ 2 times |\n" in first
    assert "| requests | 0.10 a task |  |  | ≤ 0.11 a task |\n" in first
    figures.keep(folder, {"bake": [SLOW], "delivery": [FAST, ALONE]})
    assert shown(folder) == first


def test_a_benchmark_replaces_its_own_figures_and_those_of_another_machine(folder):
    figures.keep(folder, {"bake": [SLOW], "delivery": [FAST]})
    figures.keep(folder, {"bake": [ALONE]})
    assert figures.read(kept(folder)) == [ALONE, FAST]
    (folder / "docs" / "figures.json").write_text(json.dumps({**kept(folder), "python": "2.7"}))
    figures.keep(folder, {"bake": [SLOW]})
    assert figures.read(kept(folder)) == [SLOW]


def test_a_missed_target_is_told(folder):
    figures.keep(folder, {"bake": [Figure("bake", 3, "s", "≤ 2 times", "one file", 1)]})
    assert [figure["met"] for figure in kept(folder)["figures"]["bake"]] == [False]
    assert "| 3.0 times | ≤ 2 times, missed |\n" in shown(folder)
