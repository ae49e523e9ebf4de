"""What README shows as measured is what benchmarks have measured, and meets its targets."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from conftest import TEMPLATE

from benchmarks.__main__ import NAMES
from tools import figures
from tools.figures import Figure

FAST = Figure("tasks <1>", 287.123456, "a second", "≥ 10 times", "the guides' settings", 4.2)
SLOW = Figure("bake", 0.612, "s", "≤ 2 times", "one file", 0.36)
SAME = Figure("memory", 101, "MB", "≤ 2 times", "one file", 100)
ALONE = Figure("requests", 0.1, "a task", "≤ 0.11")
EMPTY = "# Title\n\n<!-- figures -->\n<!-- end of figures -->\n\nText\n"


def shown(folder):
    """Return what there is in a folder of what `make bench` writes."""
    return {name: (folder / name).read_text(encoding="utf-8") for name in ("docs/figures.svg", "README.md")}


def kept(folder):
    return json.loads((folder / "docs" / "figures.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text(EMPTY)
    return tmp_path


def test_table_and_chart_are_those_of_the_figures_that_were_kept():
    found = shown(TEMPLATE)
    assert found == figures.files(kept(TEMPLATE), found["README.md"])


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
    assert first["README.md"].startswith("# Title\n\n<!-- figures -->\n")
    assert first["README.md"].endswith("<!-- end of figures -->\n\nText\n")
    assert where in first["README.md"]
    assert "| tasks <1> | 287 a second | 4.2, the guides' settings | 68 times | ≥ 10 times |\n" in first["README.md"]
    assert "| bake | 0.61 s | 0.36, one file | 1.7 times | ≤ 2 times |\n" in first["README.md"]
    assert "| requests | 0.10 a task |  |  | ≤ 0.11 a task |\n" in first["README.md"]
    figures.keep(folder, {"bake": [SLOW], "delivery": [FAST, ALONE]})
    assert shown(folder) == first


def test_a_chart_shows_what_is_better_and_what_is_worse(folder):
    figures.keep(folder, {"all": [SLOW, FAST, SAME, ALONE]})
    picture = ElementTree.fromstring(shown(folder)["docs/figures.svg"])
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "tasks <1>" in texts
    assert "requests" not in texts, "it has no alternative"
    said = {"1.7 times worse than one file", "68 times better than the guides' settings", "as good as one file"}
    assert said < set(texts)
    bars = [bar.attrib for bar in picture.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert [bar["class"] for bar in bars] == ["worse", "better", "worse"]
    worse, better, _ = bars
    assert float(worse["x"]) + float(worse["width"]) == pytest.approx(float(better["x"]), abs=0.2)
    assert float(better["x"]) + float(better["width"]) < float(picture.get("width"))


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
    assert "| 3.0 times | ≤ 2 times, missed |\n" in shown(folder)["README.md"]
