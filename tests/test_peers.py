"""The benchmark beside other task queues: what it counts, and what it does about those that this machine cannot run."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from conftest import TEMPLATE

from benchmarks.peers import __main__ as bench
from benchmarks.peers import install, who
from benchmarks.peers.run import on_sqs, run
from benchmarks.services import Load, Worker


def test_page_when_kept_has_tables_in_their_place():
    text = (TEMPLATE / bench.PAGE).read_text(encoding="utf-8")
    before, after = text.partition("<!-- peers -->")[0], text.partition("<!-- end of peers -->")[2]
    missing = bench.Bench(missing={"sqs-consumer": "node is not installed"})
    table = bench.Table("Tasks", ("", "tasks a second"), [("ours", "12 (10 to 14)")])
    kept = bench.page(text, missing, [table])
    assert kept.startswith(before + "<!-- peers -->\n\nMeasured on ")
    assert kept.endswith("| ours | 12 (10 to 14) |\n\n<!-- end of peers -->" + after)
    assert "Left out: sqs-consumer (node is not installed)." in kept
    assert "taskiq-aio-sqs 2." in kept
    assert bench.page(kept, missing, [table]) == kept


def test_part_when_kept_then_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--keep", "--part", "send"])
    assert "only the whole can be kept" in capsys.readouterr().err


def test_peers_when_they_cannot_be_installed_then_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(install, "FOLDER", tmp_path / "no" / "such")
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    monkeypatch.setattr(install.sys, "executable", str(tmp_path / "gone"))
    found, missing = who.others()
    assert [one.label.partition(",")[0] for one in found] == ["Celery"] * 3 + ["boto3"]
    assert {label.partition(",")[0] for label in missing} == {"dramatiq", "taskiq", "sqs-consumer"}
    assert missing["sqs-consumer, handleMessage, 10 timers"] == "node is not installed"


def test_peer_when_it_fails_then_is_left_out_and_others_go_on():
    def fail():
        raise TimeoutError("a worker does not do its work:\nlog")

    measuring = bench.Bench(rounds=2)
    assert measuring.in_rounds({"one": fail, "other": lambda: 1}) == {"other": [1, 1]}
    assert measuring.failed == ["one"]


def test_outcome_when_a_run_failed_then_is_not_kept(monkeypatch, capsys):
    def measure(measuring):
        measuring.failed.append("taskiq, defaults")
        return []

    monkeypatch.setattr(bench.Bench, "measure", measure)
    monkeypatch.setattr(bench, "write", lambda *_: pytest.fail("it was kept"))
    with pytest.raises(SystemExit) as refused:
        bench.main(["--keep"])
    assert refused.value.code == 1
    assert "taskiq, defaults" in capsys.readouterr().err


def test_names_when_in_any_case_then_choose_and_nobody_else_is_installed(monkeypatch):
    def install_nothing():
        raise AssertionError

    monkeypatch.setattr(who, "python", install_nothing)
    monkeypatch.setattr(who, "node_modules", install_nothing)
    found, missing = who.others(["BOTO3"])
    assert [one.label for one in bench.Bench(names=["BOTO3"]).chosen(found)] == ["boto3, 4 threads"]
    assert missing == {}


@pytest.mark.parametrize("name", ["nobody", "dramatic"])
def test_name_when_nobody_has_it_then_is_refused_before_anything_is_installed(name, monkeypatch, capsys):
    monkeypatch.setattr(bench, "others", lambda *_: pytest.fail("peers were sought"))
    with pytest.raises(SystemExit):
        bench.main([name])
    error = capsys.readouterr().err
    assert repr(name) in error
    assert "dramatiq, 4 processes; taskiq, defaults" in error


def test_cpu_of_children_when_they_have_ended_then_counts(tmp_path):
    child = "import time\nwhile time.process_time() < 0.5: pass"
    main = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print(flush=True); input()"
    command = [sys.executable, "-c", main]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        worked = Worker(process, tmp_path / "log", time.monotonic()).cpu_seconds()
        process.communicate(b"\n")
    assert 0.5 <= worked < 5


def test_worker_when_tasks_were_sent_before_then_does_all_in_few_requests():
    outcome = run(who.BOTO3, Load(tasks=40, seconds=0.01, groups=0, concurrency=who.SLOTS), on_sqs)
    assert 0.1 <= outcome.deletes <= 0.2
    assert 0 < outcome.receives <= 0.3
    assert 0 < outcome.rate <= who.SLOTS / 0.01 * 1.1
    assert 0 < outcome.cpu < 50
