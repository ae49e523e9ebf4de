"""The example tasks; goes when they go."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from celery.backends.cache import CacheBackend
from celery.exceptions import Ignore, TaskRevokedError

CONTRACT = json.loads(Path("contract.json").read_text(encoding="utf-8"))
first, *others = (
    import_module(f"{CONTRACT['package']}.tasks.{queue['name'].replace('-', '_')}") for queue in CONTRACT["queues"]
)


def test_quick_task():
    assert first.count_words("one two  three\n") == 3


def test_chained_tasks_fit_each_other():
    assert [first.describe(first.count_words(text)) for text in ("one", "one two")] == ["1 word", "2 words"]


def test_chord_adds_up():
    assert first.add_up([1, 2, 3]) == 6
    assert first.count_words_of_all(["one", "two"]).task == "celery.chord"


def test_failing_task_fails_until_its_file_is_there(tmp_path):
    page = tmp_path / "page.txt"
    with pytest.raises(FileNotFoundError):
        first.count_words_in_file(str(page))
    page.write_text("here it is")
    assert first.count_words_in_file(str(page)) == 3


def test_receipt_is_sent_once_however_often_it_is_delivered(tmp_path):
    assert first.send_receipt("7", str(tmp_path)) is True
    assert first.send_receipt("7", str(tmp_path)) is False
    assert [path.name for path in tmp_path.iterdir()] == ["receipt-7.txt"]


def test_slow_task_works_through_all_pages():
    assert first.number_pages(3, 0) == 3


def test_report_called_directly_is_just_written():
    assert first.write_report("me", 2, 0) == "Page 1 for me\nPage 2 for me"


@pytest.fixture
def report(monkeypatch):
    """Run a report as a worker does, with results in memory; return what can be known of it."""
    backend = CacheBackend(app=first.app, backend="memory://")
    backend.client.cache.clear()
    monkeypatch.setattr(type(first.app), "backend", backend)
    first.write_report.push_request(id="report-1", called_directly=False)
    yield first.app.AsyncResult("report-1")
    first.write_report.pop_request()


def test_report_tells_its_progress(report, monkeypatch):
    seen = []
    monkeypatch.setattr(first.time, "sleep", lambda _: seen.append((report.state, report.info)))
    assert first.write_report.run("me", 3).count("\n") == 2
    assert seen == [("PENDING", None), ("PROGRESS", {"done": 1, "of": 3}), ("PROGRESS", {"done": 2, "of": 3})]


@pytest.mark.parametrize("page", [1, 3])
def test_report_that_is_cancelled_ends_before_its_next_page(report, monkeypatch, page):
    written = []

    def write(_):
        written.append(1)
        if len(written) == page:
            first.cancel_report("report-1")

    monkeypatch.setattr(first.time, "sleep", write)
    with pytest.raises(Ignore):
        first.write_report.run("me", 5)
    assert (len(written), report.state) == (page, "REVOKED")
    with pytest.raises(TaskRevokedError, match="cancelled"):
        report.get()


def test_report_that_was_cancelled_before_it_began_writes_nothing(report, monkeypatch):
    monkeypatch.setattr(first.time, "sleep", lambda _: pytest.fail("it began"))
    first.cancel_report("report-1")
    with pytest.raises(Ignore):
        first.write_report.run("me", 5)


@pytest.mark.parametrize(
    "tasks",
    [tasks for tasks in others if hasattr(tasks, "reverse")],
    ids=lambda tasks: tasks.__name__.rpartition(".")[2],
)
def test_other_queues_tasks(tasks):
    assert tasks.reverse("abc") == "cba"
