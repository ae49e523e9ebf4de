"""Builds the documentation site: `make site` runs it.

The site has README.md, the pages of `docs/` and of the examples, and those of two generated services, one with SQS and
one with RabbitMQ. zensical.toml has its navigation. A link or an anchor that leads nowhere fails the build.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote

TEMPLATE = Path(__file__).parents[1]
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
SERVICES = {"service": (), "rabbitmq": ("broker=rabbitmq", "results=redis")}
"""Folders of the site, each with the answers of the service whose pages it has; together they have every alarm."""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
SEARCH_NO = "---\nsearch:\n  exclude: true\n---\n"
GITHUB = "https://github.com"
LINKED = '\n[[project.extra.social]]\nicon = "fontawesome/brands/github"\nlink = "{}"\n'
DRAW = '\n<script src="{}"></script>\n<script>mermaid.initialize({{startOnLoad: false}})</script>\n'


def collect(output: Path) -> dict[Path, str]:
    """Generate the services; return each file of the site with its path there."""
    files = {path: path.name for path in (TEMPLATE / "docs").iterdir() if path.suffix in (".md", ".svg", ".png")}
    files |= {path: f"{path.parent.name}.md" for path in TEMPLATE.glob("examples/*/README.md")}
    files |= {TEMPLATE / f"{name}.md": f"{name.lower()}.md" for name in ("CHANGELOG", "CONTRIBUTING")}
    files[TEMPLATE / "README.md"] = "index.md"
    for folder, answers in SERVICES.items():
        project = output / folder / "acme-jobs"
        command = ("cookiecutter", str(TEMPLATE), "--no-input", "--default-config", "--output-dir", str(project.parent))
        subprocess.run((sys.executable, "-m", *command, *answers), check=True, stdout=subprocess.DEVNULL)
        files |= {path: f"{folder}/{path.name}" for path in project.glob("docs/*.md")}
        files[project / "README.md"] = f"{folder}/index.md"
        for name in ("README", "CHANGELOG"):
            # The same in every service.
            files[project / "chassis" / f"{name}.md"] = f"service/chassis-{name.lower()}.md"
    return files


def find(target: Path, anchor: str, files: dict[Path, str]) -> str | None:
    """Return the page of a file; for a template of pages, the page of the service whose broker or heading is meant."""
    if not target.is_relative_to(PROJECT):
        return files.get(target)
    name = re.sub(r"\.(sqs|rabbitmq)\.md$", ".md", target.relative_to(PROJECT).as_posix())
    made = {path: page for path, page in files.items() if "/" in page and path.match(f"acme-jobs/{name}")}
    heading = re.compile(rf"^#+ {anchor[1:].replace('-', '[ -]')}$", re.MULTILINE | re.IGNORECASE)
    for path, page in made.items():
        if page.startswith("rabbitmq/") if ".rabbitmq." in target.name else heading.search(path.read_text("utf-8")):
            return page
    return next(iter(made.values()), None)


def relink(text: str, source: Path, files: dict[Path, str], repository: str) -> str:
    """Return a page whose links lead to other pages, or into the repository for what is no page."""

    def link(found: re.Match[str]) -> str:
        image, words, path, anchor = found[1], found[2], unquote(found[3]), found[4] or ""
        target = (source.parent / path).resolve()
        if page := find(target, anchor, files):
            return f"{image}[{words}]({os.path.relpath(page, Path(files[source]).parent)}{anchor})"
        if made := re.search(r"/generated/\w+/acme-jobs/(.*)", target.as_posix()):
            target = PROJECT / made[1]
        if not target.exists():
            return found[0]
        file = quote(target.relative_to(TEMPLATE).as_posix())
        return f"[{words}]({GITHUB}/{repository}/blob/main/{file})" if repository else words

    return LINK.sub(link, text)


def write_pages(pages: Path, files: dict[Path, str], repository: str, *, draws: bool) -> None:
    """Write the files of the site."""
    headings = set()
    for source, page in files.items():
        target = pages / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix != ".md":
            shutil.copyfile(source, target)
            continue
        text = relink(source.read_text("utf-8"), source, files, repository)
        if not draws:
            text = text.replace("```mermaid", "```text")
        elif "```mermaid" in text:
            text += DRAW.format("../" * page.count("/") + "mermaid.min.js")
        # Search finds a page once if both services have it.
        same = (source.name, *re.findall("(?m)^#.*", text))
        text = SEARCH_NO + text if page.startswith("rabbitmq/") and same in headings else text
        headings.add(same)
        target.write_text(text.replace("<org>", repository.partition("/")[0] or "<org>"), "utf-8")


def main() -> None:
    """Write the pages, and the site that they make."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=TEMPLATE / ".site", help="its folder html/ becomes the site")
    parser.add_argument("--mermaid", type=Path, help="mermaid.min.js, which draws diagrams; without, they remain code")
    parser.add_argument("--repository", default=os.environ.get("GITHUB_REPOSITORY", ""), help="owner/name, for links")
    options = parser.parse_args()
    output = options.output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    write_pages(output / "pages", collect(output / "generated"), options.repository, draws=bool(options.mermaid))
    settings = (TEMPLATE / "zensical.toml").read_text("utf-8")
    if options.mermaid:
        shutil.copyfile(options.mermaid, output / "pages" / "mermaid.min.js")
    if options.repository:
        # Not `repo_url`, for which pages would ask GitHub's API.
        settings += LINKED.format(f"{GITHUB}/{options.repository}")
    (output / "zensical.toml").write_text(settings, "utf-8")
    command = (sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(output / "zensical.toml"))
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
