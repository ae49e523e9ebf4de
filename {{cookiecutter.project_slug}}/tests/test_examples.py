"""The example tasks; goes when they go."""

from __future__ import annotations

import importlib

import pytest

from tests.support import CONTRACT

first, *others = (
    importlib.import_module(f"{CONTRACT['package']}.tasks.{queue['name'].replace('-', '_')}")
    for queue in CONTRACT["queues"]
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


@pytest.mark.parametrize(
    "module",
    [module for module in others if hasattr(module, "reverse")],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
def test_other_queues_tasks(module):
    assert module.reverse("abc") == "cba"
