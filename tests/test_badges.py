"""What README shows as proven is what a whole run of the tests has told."""

from __future__ import annotations

import json
import runpy
import sys
from xml.etree import ElementTree

import pytest
from conftest import TEMPLATE

badges = runpy.run_path(str(TEMPLATE / "tools" / "badges.py"))
FIGURES = {"Python": "3.13", "tests passed": 1_234, "mutants caught": 21}


def drawn(folder):
    """Return what there is in a folder of what `make badges` writes."""
    found = (folder / "README.md", *folder.glob("docs/proven.json"), *folder.glob("docs/badges/*"))
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in found}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text("# Title\n\nText with ![a picture](x.svg)\n")
    return tmp_path


def draw(folder, proven, *, is_whole=True):
    (folder / ".proven.json").write_text(json.dumps({"is_whole": is_whole, "proven": proven}))
    badges["main"](folder)
    return drawn(folder)


def test_badges_are_those_of_the_run_that_was_kept_or_none():
    kept = TEMPLATE / "docs" / "proven.json"
    proven = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    found = drawn(TEMPLATE)
    found.pop("docs/proven.json", None)
    assert found == badges["files"](proven, found["README.md"])


def test_figures_are_drawn_anew_with_every_run(folder):
    before = drawn(folder)
    found = draw(folder, FIGURES)
    assert json.loads(found["docs/proven.json"]) == FIGURES
    assert found["README.md"] == (
        "# Title\n\n![Python: 3.13](docs/badges/python.svg)\n![tests: 1,234 passed](docs/badges/tests-passed.svg)\n"
        "![mutants: 21 caught](docs/badges/mutants-caught.svg)\n\nText with ![a picture](x.svg)\n"
    )
    pictures = {name: ElementTree.fromstring(text) for name, text in found.items() if name.endswith(".svg")}
    assert len(pictures) == 3
    assert "".join(pictures["docs/badges/tests-passed.svg"].itertext()).split() == ["tests", "1,234", "passed"]
    assert draw(folder, FIGURES) == found
    assert "docs/badges/mutants-caught.svg" not in draw(folder, {"Python": "3.14"})
    assert draw(folder, {}) == {**before, "docs/proven.json": "{}\n"}


def test_no_badge_of_a_run_that_failed_or_left_tests_out_or_never_was(folder):
    before = draw(folder, FIGURES)
    with pytest.raises(SystemExit, match=r"failed, or left tests out: .*'tests failed': 2"):
        draw(folder, {"tests failed": 2}, is_whole=False)
    (folder / ".proven.json").unlink()
    with pytest.raises(SystemExit, match="make test-all"):
        badges["main"](folder)
    assert drawn(folder) == before


@pytest.mark.parametrize(
    ("options", "is_whole"),
    [
        (("-o", "testpaths=tests/test_hooks.py"), True),
        (("-o", "testpaths=tests/test_hooks.py", "--deselect", "tests/test_hooks.py::test_naming_rule"), False),
        (("-o", "testpaths=tests/test_hooks.py", "--collect-only"), False),
        (("tests/test_hooks.py",), False),
    ],
    ids=["whole", "deselected", "collected", "named"],
)
def test_a_run_tells_whether_it_was_whole(run, tmp_path, options, is_whole):
    told = tmp_path / "proven.json"
    run(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses=2", f"--proven={told}", *options),
        cwd=TEMPLATE,
    )
    assert json.loads(told.read_text())["is_whole"] is is_whole
