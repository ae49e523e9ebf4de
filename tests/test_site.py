"""The documentation site: its links, and what readers find with two clicks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from conftest import TEMPLATE
from markdown_it import MarkdownIt

COUNTED = ("ol", "ul", "li", "pre", "table", "tr", "img", "em", "strong")


class Page(HTMLParser):
    """What a page has: ids, links, what it loads, and the elements and code of its article."""

    def __init__(self, html, *, is_article=False):
        super().__init__()
        self.ids, self.links, self.loaded, self.navigation = set(), [], [], []
        self.elements, self.code, self.is_article, self.in_code = Counter(), [], is_article, False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes.get("id")}
        self.is_article |= tag == "article"
        self.is_article &= attributes.get("class") != "footnote"
        if tag == "a" and (link := attributes.get("href")):
            (self.links if self.is_article else self.navigation).append(link)
        self.loaded += [attributes["src"]] if attributes.get("src") else []
        self.loaded += [attributes["href"]] if tag == "link" and attributes.get("rel") != "canonical" else []
        self.elements[tag] += self.is_article
        if tag == "code" and self.is_article:
            self.code.append("")
            self.in_code = True

    def handle_data(self, data):
        if self.in_code:
            self.code[-1] += data

    def handle_endtag(self, tag):
        self.is_article &= tag != "article"
        self.in_code &= tag != "code"


def build(output):
    command = (sys.executable, "-m", "zensical", "build", "--strict", "--config-file", output / "zensical.toml")
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site; return its folder."""
    output = tmp_path_factory.mktemp("site")
    command = (sys.executable, TEMPLATE / "tools" / "site.py", "--output", output, "--repository", "us/template")
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return output


@pytest.fixture(scope="module")
def pages(site):
    html = site / "html"
    return {path: Page(path.read_text(encoding="utf-8")) for path in html.rglob("*.html") if path.name != "404.html"}


def targets(path, links):
    """Return the files that links of a page lead to, each with its anchor."""
    local = [unquote(link).partition("#") for link in links if not re.match(r"[a-z]+:", link)]
    return [((path.parent / file).resolve() if file else path, anchor) for file, _, anchor in local]


def test_links_of_the_site_lead_somewhere_and_nothing_is_loaded_from_elsewhere(pages):
    assert len(pages) > 40
    for path, page in pages.items():
        assert [address for address in page.loaded if re.match(r"[a-z]+:|//", address)] == []
        for file, anchor in targets(path, [*page.links, *page.navigation, *page.loaded]):
            assert file.exists(), f"{path.name}: {file}"
            assert not anchor or anchor in pages[file].ids, f"{path.name}: {file.name}#{anchor}"


def test_links_to_files_that_are_no_pages_lead_to_the_repository(pages):
    start = "https://github.com/us/template/blob/main/"
    files = {link.removeprefix(start) for page in pages.values() for link in page.links if link.startswith(start)}
    assert len(files) > 20
    assert [file for file in files if not (TEMPLATE / unquote(file)).exists()] == []


def test_navigation_has_every_page(site, pages):
    index = site / "html" / "index.html"
    assert pages.keys() - {file for file, _ in targets(index, pages[index].navigation)} == set()


def test_lists_and_tables_of_pages_are_those_that_github_shows(site, pages):
    markdown = MarkdownIt("commonmark").enable("table")
    for path, page in pages.items():
        source = (site / "pages" / path.relative_to(site / "html")).with_suffix(".md").read_text(encoding="utf-8")
        text = re.sub(r"\A---\n(.*\n)+?---\n|^\[\^.*\n( {4}.*\n)*", "", source, flags=re.MULTILINE)
        wanted = Page(markdown.render(text), is_article=True)
        assert {tag: page.elements[tag] for tag in COUNTED} == {tag: wanted.elements[tag] for tag in COUNTED}, path.name


@pytest.mark.parametrize(
    ("question", "command"),
    [
        ("How do I start?", "make dev"),
        ("Why does my task fail?", "acme-jobs dlq list"),
        ("How do I move to a newer template?", "cruft update"),
    ],
)
def test_answers_when_links_are_followed_then_are_two_clicks_away(site, pages, question, command):
    reached = {site / "html" / "index.html"}
    for _ in range(2):
        reached |= {file for path in reached for file, _ in targets(path, pages[path].links) if file in pages}
    assert [path for path in reached if any(command in code for code in pages[path].code)], question


@pytest.mark.parametrize("link", ["gone.md", "updating.md#gone"])
def test_site_when_a_link_leads_nowhere_then_is_not_built(site, tmp_path, link):
    copy = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("generated", "html"))
    with (copy / "pages" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[A link]({link})\n")
    assert build(copy).returncode != 0
