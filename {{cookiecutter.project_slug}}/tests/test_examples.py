"""The example tasks: delete this file together with src/<package>/examples.py."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from celery.backends.cache import CacheBackend
from celery.exceptions import Ignore, TaskRevokedError

CONTRACT = json.loads(Path("contract.json").read_text(encoding="utf-8"))
examples = import_module(f"{CONTRACT['package']}.examples")

with_results = pytest.mark.skipif(CONTRACT["results"] == "none", reason="needs results")


def test_count_words_counts_words():
    assert examples.count_words("one two  three\n") == 3


def test_chain_when_its_tasks_are_called_in_turn_then_they_fit():
    counts = [examples.count_words(text) for text in ("one", "one two")]
    assert [examples.describe_count(count) for count in counts] == ["1 word", "2 words"]


def test_chord_adds_up():
    assert examples.add_up([1, 2, 3]) == 6
    assert examples.count_words_of_all(["one", "two"]).task == "celery.chord"


def test_count_words_in_file_when_it_is_missing_then_raises(tmp_path):
    page = tmp_path / "page.txt"
    with pytest.raises(FileNotFoundError):
        examples.count_words_in_file(str(page))
    page.write_text("here it is")
    assert examples.count_words_in_file(str(page)) == 3


def test_send_receipt_when_delivered_twice_then_sends_once(tmp_path):
    assert examples.send_receipt("7", str(tmp_path)) is True
    assert examples.send_receipt("7", str(tmp_path)) is False
    assert [path.name for path in tmp_path.iterdir()] == ["receipt-7.txt"]


def test_number_pages_numbers_all_pages():
    assert examples.number_pages(3, 0) == 3


def test_write_report_when_called_directly_then_needs_no_results():
    assert examples.write_report("me", 2, 0) == "Page 1 for me\nPage 2 for me"


@pytest.fixture
def report(monkeypatch):
    """Run a report as a worker does, with results in memory; return its result."""
    backend = CacheBackend(app=examples.app, backend="memory://")
    backend.client.cache.clear()
    monkeypatch.setattr(type(examples.app), "backend", backend)
    examples.write_report.push_request(id="report-1", called_directly=False)
    yield examples.app.AsyncResult("report-1")
    examples.write_report.pop_request()


def test_write_report_reports_its_progress(report, monkeypatch):
    seen = []
    monkeypatch.setattr(examples.time, "sleep", lambda _: seen.append((report.state, report.info)))
    assert examples.write_report.run("me", 3).count("\n") == 2
    assert seen == [("PENDING", None), ("PROGRESS", {"done": 1, "of": 3}), ("PROGRESS", {"done": 2, "of": 3})]


@pytest.mark.parametrize("page", [1, 3])
def test_write_report_when_cancelled_then_ends_before_its_next_page(report, monkeypatch, page):
    written = []

    def write(_):
        written.append(1)
        if len(written) == page:
            examples.cancel_report("report-1")

    monkeypatch.setattr(examples.time, "sleep", write)
    with pytest.raises(Ignore):
        examples.write_report.run("me", 5)
    assert (len(written), report.state) == (page, "REVOKED")
    with pytest.raises(TaskRevokedError, match="cancelled"):
        report.get()


def test_write_report_when_cancelled_before_it_starts_then_writes_nothing(report, monkeypatch):
    monkeypatch.setattr(examples.time, "sleep", lambda _: pytest.fail("it started"))
    examples.cancel_report("report-1")
    with pytest.raises(Ignore):
        examples.write_report.run("me", 5)


@pytest.mark.end_to_end
def test_example_when_delivered_by_name_then_a_worker_runs_it(deliver):
    counted = deliver("examples.count_words", "one two three", group="examples")
    assert counted == (3 if CONTRACT["results"] != "none" else None)


@with_results
@pytest.mark.end_to_end
def test_chord_when_sent_then_workers_add_up(service):
    code = (
        f"from {examples.__name__} import count_words_of_all\n"
        f"chord = count_words_of_all(['one', 'one two', 'one two three'])\n"
        f"print(chord.apply_async(MessageGroupId='chord').get(timeout=60))\n"
    )
    run = service.python("-c", code)
    assert (run.stdout, run.returncode) == ("6\n", 0), run.stderr


@with_results
@pytest.mark.end_to_end
def test_write_report_when_cancelled_by_a_task_then_is_revoked(service):
    code = (
        f"import time\n"
        f"from celery.exceptions import TaskRevokedError\n"
        f"from {examples.__name__} import QUEUE, cancel_report, write_report\n"
        f"options = {{'queue': QUEUE, 'MessageGroupId': 'report'}}\n"
        f"report = write_report.apply_async(('customer-7', 1000, 0.05), **options)\n"
        f"while report.state != 'PROGRESS': time.sleep(0.05)\n"
        f"print(report.info['of'])\n"
        f"cancel_report.apply_async((report.id,), queue=QUEUE, MessageGroupId='another')\n"
        f"try: report.get(timeout=40)\n"
        f"except TaskRevokedError as error: print(report.state, error)\n"
    )
    run = service.python("-c", code)
    assert (run.stdout, run.returncode) == ("1000\nREVOKED cancelled\n", 0), run.stderr
