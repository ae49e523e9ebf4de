"""Draws badges of what a whole run of the tests has proven: `make badges`, behind `make test-all`.

A run leaves its figures in `.proven.json`; see `tests/conftest.py`. They are kept in `docs/proven.json`, from which the
pictures and README's line of them follow. A test holds these together, so that nobody writes a figure by hand.
"""

from __future__ import annotations

import json
import re
import sys
from html import escape
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
README = re.compile(r"(# .*\n\n)(?:(?:!\[.*\n)+\n)?")
"""How README begins: its title, and the badges if there are any."""

PIXELS_PER_LETTER = 6.6
PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{what}: {figure}">
<rect width="{width}" height="20" rx="3" fill="#44474d"/>
<path d="M{split} 0H{width}v20H{split}z" fill="#1f6f43"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11">
<text x="{left}" y="14">{what}</text>
<text x="{right}" y="14">{figure}</text>
</g>
</svg>
"""


def picture(what: str, figure: str) -> str:
    """Draw a badge: what it is about on the left, the figure on the right."""
    split, rest = (round(10 + PIXELS_PER_LETTER * len(text)) for text in (what, figure))
    width, left, right = split + rest, split / 2, split + rest / 2
    return PICTURE.format(width=width, split=split, left=left, right=right, what=escape(what), figure=escape(figure))


def files(proven: dict[str, int | str], readme: str) -> dict[str, str]:
    """Return the pictures and README by their paths; nothing proven leaves README without any.

    `{"mutants caught": 21}` is said as: mutants, 21 caught. What is no number is said as it is.
    """
    written, line = {}, ""
    for name, figure in proven.items():
        what, _, done = name.rpartition(" ")
        said = (what, f"{figure:,} {done}") if isinstance(figure, int) else (name, figure)
        path = f"docs/badges/{name.lower().replace(' ', '-')}.svg"
        written[path] = picture(*said)
        line += f"![{': '.join(said)}]({path})\n"
    return {**written, "README.md": README.sub(lambda begin: begin[1] + (line and f"{line}\n"), readme, count=1)}


def write(folder: Path, files: dict[str, str]) -> None:
    """Write texts by their paths in a folder."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def main(folder: Path) -> None:
    """Keep the last run's figures, and draw them; exit with the reason if it was no whole one that passed."""
    try:
        run = json.loads((folder / ".proven.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit("No run to tell of: make test-all comes first.")
    if not run["is_whole"]:
        sys.exit(f"The last run failed, or left tests out: {run['proven']}")
    for old in (folder / "docs" / "badges").glob("*.svg"):
        old.unlink()
    kept = json.dumps(run["proven"], indent=2, ensure_ascii=False) + "\n"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    write(folder, {"docs/proven.json": kept, **files(run["proven"], readme)})


if __name__ == "__main__":
    main(TEMPLATE)
