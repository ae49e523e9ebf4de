"""Generates a project with an example of `examples/` in it: `make example NAME=reports` runs it.

An example is a folder: answers.json has the answers, edits.json says which lines of the project become which, README.md
becomes `docs/<name>.md`, and all other files are copied over the project's. The template's own examples are deleted.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cookiecutter.exceptions import OutputDirExistsException
from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).parents[1]
EXAMPLES = TEMPLATE / "examples"
OWN = ("answers.json", "edits.json", "README.md")
"""Files of an example that are not copied as they are."""
COMPILE = (
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"),
    *("--generate-hashes", "--no-header", "--no-annotate", "pyproject.toml"),
)


def generate(name: str, output: Path, answers: dict[str, str]) -> Path:
    """Generate the project of an example; return its folder.

    Args:
        name: the example.
        output: where the project's folder is created.
        answers: answers that differ from those of the example.
    """
    example = EXAMPLES / name
    chosen = {**json.loads((example / "answers.json").read_text(encoding="utf-8")), **answers}
    project = Path(
        cookiecutter(str(TEMPLATE), no_input=True, default_config=True, extra_context=chosen, output_dir=str(output))
    )
    delete_examples(project, name)
    for file, lines in json.loads((example / "edits.json").read_text(encoding="utf-8")).items():
        edit(project / file, lines)
    shutil.copytree(example, project, dirs_exist_ok=True, ignore=lambda folder, names: set(OWN) & set(names))
    shutil.copyfile(example / "README.md", project / "docs" / f"{name}.md")
    return project


def delete_examples(project: Path, name: str) -> None:
    """Delete the template's example tasks, as the project's README says, and name the page of this one there."""
    for file in (*project.glob("src/*/examples.py"), project / "tests" / "test_examples.py"):
        file.unlink()
    readme = project / "README.md"
    page = f"## The example\n\n[docs/{name}.md](docs/{name}.md) explains the code in this service.\n\n"
    text = re.sub(
        r"^## The examples\n.*?(?=^## )", page, readme.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    readme.write_text(text, encoding="utf-8")


def edit(file: Path, lines: dict[str, list[str]]) -> None:
    """Replace lines of a file, each by others.

    Raises:
        ValueError: a line is not in the file exactly once.
    """
    text = file.read_text(encoding="utf-8").splitlines()
    for line, others in lines.items():
        if text.count(line) != 1:
            raise ValueError(f"{file} has {text.count(line)} lines {line!r}")
        at = text.index(line)
        text[at : at + 1] = others
    file.write_text("\n".join(text) + "\n", encoding="utf-8")


def lock(project: Path) -> None:
    """Pin what the example needs in addition; the other pins stay."""
    for options in (
        ("-o", "requirements.txt"),
        ("--extra", "dev", "-c", "requirements.txt", "-o", "requirements-dev.txt"),
    ):
        subprocess.run((sys.executable, "-m", *COMPILE, *options), check=True, cwd=project, stdout=subprocess.DEVNULL)


def checked(answers: list[str]) -> dict[str, str]:
    """Return answers by their questions.

    Raises:
        ValueError: there is no such question, or the example depends on its own answer.
    """
    questions = [
        name for name in json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8")) if name[0] != "_"
    ]
    chosen = {}
    for answer in answers:
        question, is_answered, value = answer.partition("=")
        if not is_answered or question not in questions:
            raise ValueError(f"{answer}: write question=answer; questions: {', '.join(questions)}")
        if question == "queues":
            raise ValueError(f"{answer}: the tasks of an example need its own queues")
        chosen[question] = value
    return chosen


def main() -> None:
    """Generate what the command line asks for."""
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=names)
    parser.add_argument("answers", nargs="*", metavar="question=answer", help="answers other than the example's")
    parser.add_argument("--output-dir", type=Path, default=Path(".."), help="default: %(default)s")
    parser.add_argument("--no-lock", action="store_true", help="do not pin what the example needs in addition")
    options = parser.parse_intermixed_args()
    try:
        project = generate(options.name, options.output_dir, checked(options.answers))
    except (ValueError, OutputDirExistsException) as error:
        parser.error(str(error))
    if not options.no_lock:
        lock(project)
    print(f"The example is in {project}; read docs/{options.name}.md there, and run make dev.")


if __name__ == "__main__":
    main()
