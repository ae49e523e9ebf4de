"""How long a bake takes, against a template of a single file.

Both are baked in turn by the same command, so that the machine's moods hit them alike; the median
of each is compared.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.figures import Figure

TEMPLATE = Path(__file__).parents[1]
TURNS = 15


def one_file_template(folder: Path) -> Path:
    """Write the smallest template there can be."""
    template = folder / "one-file"
    inside = template / "{{cookiecutter.project_slug}}"
    inside.mkdir(parents=True)
    (template / "cookiecutter.json").write_text(json.dumps({"project_slug": "acme-jobs"}), encoding="utf-8")
    (inside / "README.md").write_text("# {{ cookiecutter.project_slug }}\n", encoding="utf-8")
    return template


def seconds(template: Path, folder: Path) -> float:
    """Bake once into a new folder."""
    output = tempfile.mkdtemp(dir=folder)
    command = [
        *(sys.executable, "-m", "cookiecutter", str(template)),
        *("--no-input", "--default-config", "--output-dir", output),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def measure() -> list[Figure]:
    """Return how long a bake takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        templates = {"this template": TEMPLATE, "one file": one_file_template(folder)}
        taken: dict[str, list[float]] = {label: [] for label in templates}
        for turn in range(TURNS + 1):
            for label, template in templates.items():
                spent = seconds(template, folder)
                if turn:  # The first turn warms the caches.
                    taken[label].append(spent)
    ours, least = (statistics.median(taken[label]) for label in templates)
    return [Figure("bake of the default answers", ours, "s", "≤ 2 times", "a one-file template", least)]
