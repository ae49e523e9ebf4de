"""The `dlq` command on RabbitMQ: peeking, moving and exporting; no message is lost, whatever happens."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from datetime import datetime
from decimal import Decimal

import pytest

from celery_aws.dev.brokers import rabbitmq as broker
from library.commands import COMMAND, PEAK_MEBIBYTES, Commands, exported_bodies, interrupt
from library.rabbitmq.broker import faulty
from library.rabbitmq.messages import bodies, celery_body, channel, name, put, take, visible
from library.support import eventually, module, notes

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

REASON = {
    "FailureException": "ValueError('no')",
    "FailureTraceback": 'File "x.py"\n  boom()',
    "FailureAttempt": "2",
    "FailureHost": "host-7",
    "x-earlier-deliveries": 2,
}


@pytest.fixture
def commands(quiet):
    """Its command, with empty queues."""
    with channel(quiet) as opened:
        for dead in (True, False):
            opened.purge(name(quiet, dead=dead))
    return Commands(quiet)


@pytest.fixture
def queue(quiet):
    return quiet.queue.name


def test_list_tells_what_there_is_and_gives_it_back(quiet, commands, queue):
    assert "0 dead-letter messages" in commands.run("dlq", "list", queue)
    put(quiet, [*(celery_body(n) for n in range(13)), "{}", "foreign \x1b[31m[red]", b"\xff\x00"])
    put(quiet, [celery_body(99)], headers={**REASON, "MessageGroupId": "other"}, timestamp=int(time.time()) - 7200)
    said = commands.run("dlq", "list", queue, status=1)
    assert all(len(line) <= 80 for line in said.splitlines()), said
    assert "\x1b" not in said
    assert f"17 dead-letter messages in {name(quiet)}" in said
    assert "ValueError('no')" in said
    assert "(not Celery)" in said
    assert "14 x library.probes.leave_trace" in said
    listed = commands.lines("dlq", "list", queue, status=1)
    assert [line["id"] for line in listed[:13]] == [f"{n:08d}-aaaa" for n in range(13)]
    assert {line["group"] for line in listed} == {None, "other", *(f"group-{n}" for n in range(13))}
    (failed,) = (line for line in listed if line["id"].startswith("00000099"))
    assert (failed["reason"], failed["receive_count"]) == ("ValueError('no')", 2)
    assert 7200 <= failed["age_seconds"] < 7300
    assert eventually(lambda: visible(quiet) == 17)
    assert len({message.body for message in take(quiet, dead=True)}) == 17


def test_list_tells_what_the_broker_knows_of_a_failure(quiet, commands, queue):
    put(quiet, [celery_body(1)], dead=False, headers={"x-earlier-deliveries": 3})
    with channel(quiet) as opened:
        taken = eventually(lambda: opened.basic_get(queue))
        opened.basic_reject(taken.delivery_tag, requeue=False)
    assert eventually(lambda: visible(quiet) == 1)
    (line,) = commands.lines("dlq", "list", queue, status=1)
    limit = quiet.queue.max_receive_count
    assert (line["receive_count"], line["reason"]) == (limit, f"received {limit} times")
    assert line["age_seconds"] < 100
    commands.run("dlq", "redrive", queue)
    with channel(quiet) as opened:
        for _ in range(limit):
            taken = eventually(lambda: opened.basic_get(queue))
            opened.basic_reject(taken.delivery_tag, requeue=True)
    assert eventually(lambda: visible(quiet) == 1)
    (line,) = commands.lines("dlq", "list", queue, status=1)
    assert (line["receive_count"], line["reason"]) == (limit, f"its worker died in each of {limit} attempts")


def test_list_selects(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(3)])
    put(quiet, [celery_body(9)], headers={"task": "pkg.tasks.high.other"})
    assert len(commands.lines("dlq", "list", queue, "--task", "high.other", status=1)) == 1
    assert len(commands.lines("dlq", "list", queue, "--task", "igh.other", status=0)) == 0
    assert len(commands.lines("dlq", "list", queue, "--id", "00000002", "--id", "00000001-aaaa", status=1)) == 2
    assert len(commands.lines("dlq", "list", queue, "--older-than", "1h", status=0)) == 0
    assert len(commands.lines("dlq", "list", queue, "--limit", "2", status=1)) == 2
    dead = name(quiet)
    said = "{} of about 4 dead-letter messages in {}"
    assert said.format(2, dead) in commands.run("dlq", "list", queue, "--limit", "2", status=1)
    assert said.format(1, dead) in commands.run("dlq", "list", queue, "--task", "high.other", "--limit", "1", status=1)
    assert f"{said.format(0, dead)} match" in commands.run("dlq", "list", queue, "--older-than", "3d")
    assert f"{said.format(1, dead)} match" in commands.run("dlq", "list", queue, "--task", "high.other", status=1)
    assert f"4 dead-letter messages in {dead}" in commands.run("dlq", "list", queue, "--limit", "5", status=1)
    commands.run("dlq", "list", queue, "--id", "0000", status=2)
    assert "--id 0000 is too short; use at least 8 characters" in " ".join(commands.errors.split())
    commands.run("dlq", "list", queue, "--older-than", "soon", status=2)
    assert "90s, 30m, 2h or 3d" in commands.errors
    assert eventually(lambda: visible(quiet) == 4)


@pytest.mark.parametrize("columns", [30, 50, 60, 80])
def test_list_when_the_window_is_narrow_then_ids_names_and_figures_are_whole(quiet, commands, queue, columns):
    put(quiet, [celery_body(1)])
    said = commands.run("dlq", "list", queue, status=1, COLUMNS=str(columns))
    table = said[: said.index("1 dead-letter message")]
    assert all(len(line) <= columns for line in table.splitlines()), said
    assert "00000001" in said.split()
    task = "".join(line.split(" ")[0] for line in table.splitlines()[1:])
    assert task.startswith("library.probes.leave_trace"), said
    assert ("REASON" in said) == (columns >= 60)


def test_show_tells_all_of_one(quiet, commands, queue):
    put(quiet, [celery_body(1)], headers=REASON)
    put(quiet, ["not a Celery message"])
    said = commands.run("dlq", "show", queue, "--id", "00000001")
    for text in ('["argument 1"]', "ValueError('no')", "boom()", "host-7", "group-1", "library.probes.leave_trace"):
        assert text in said
    (shown,) = commands.lines("dlq", "show", queue, "--id", "00000001")
    assert shown["body"] == celery_body(1)
    assert REASON.items() <= shown["headers"].items()
    foreign = next(line for line in commands.lines("dlq", "list", queue, status=1) if not line["task"])
    assert "not a Celery message" in commands.run("dlq", "show", queue, "--id", foreign["message_id"])
    commands.run("dlq", "show", queue, "--id", "99999999", status=2)
    assert "no message in" in commands.errors
    assert eventually(lambda: visible(quiet) == 2)


def test_show_when_a_message_is_unreadable_then_shows_its_body(quiet, commands, queue):
    reason = {**REASON, "id": "00000001-aaaa"}
    put(quiet, ["\x1b<order/>" + "x" * 3_000], headers={**reason, "task": "x.y"}, content_type="text/xml")
    put(quiet, [""], headers=reason, message_id="00000002-bbbb")
    said = commands.run("dlq", "show", queue, "--id", "00000001")
    assert "text/xml" in said
    assert "<order/>xxx" in said
    assert "more characters; --json shows all" in " ".join(said.split())
    assert "x" * 2_500 not in "".join(said.split())
    assert not {"boom()", "FailureTraceback:", "\x1b"} & set(said.split())
    said = commands.run("dlq", "show", queue, "--id", "00000002")
    assert "not a Celery message, ValueError('no'); no body" in " ".join(said.split())
    assert "(empty)" in said


def test_what_strangers_send_does_no_harm(quiet, commands, queue):
    odd = {"task": "x\x1b[31m.leave_trace", "id": "12345678\x1b]0;x", "argsrepr": ["?"], "MessageGroupId": 7}
    put(quiet, ['[["\\ud800"], {}, {}]'], headers=odd)
    (line,) = commands.lines("dlq", "list", queue, status=1)
    assert (line["id"], line["task"]) == (odd["id"], odd["task"])
    assert "\\ud800" in str(commands.lines("dlq", "show", queue, "--id", "12345678")[0]["body"])
    commands.run("dlq", "list", queue, status=1, PYTHONIOENCODING="ascii")
    terminal = commands.terminal("dlq", "resend", queue, "--task", "leave_trace", "--dry-run")
    terminal.expect("1 message would be sent")
    assert "would resend" in terminal.before
    assert not re.search("\x1b(\\[31m|])", terminal.before)
    terminal.wait()


def test_mistakes_are_errors_without_a_traceback(commands, queue):
    assert "no queue 'nope'" in (commands.run("dlq", "list", "nope", status=2) or commands.errors)
    commands.run("dlq", "list", queue, "--environment", "Not one", status=2)
    commands.run("dlq", "list", queue, ENVIRONMENT="", status=2)
    commands.run("dlq", "resend", queue, status=2)
    assert "select messages with" in commands.errors


BROKEN = {
    "no broker": ({"BROKER_URL": "amqp://127.0.0.1:9/x"}, "does not respond"),
    "not encrypted": ({"BROKER_URL": "amqp://broker.example.com/x"}, "BROKER_URL: Value error, must be amqps://"),
    "wrong password": ({"BROKER_PASSWORD": "secret-word"}, "does not accept BROKER_USERNAME and BROKER_PASSWORD"),
    "no password": ({"BROKER_PASSWORD": ""}, "BROKER_PASSWORD"),
    "no virtual host": ({"BROKER_URL": "{server}/nowhere"}, "virtual host in BROKER_URL does not exist"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("command", ["dlq list {queue}", "dlq redrive {queue}", "queues", "send {queue}.measure x"])
def test_broker_that_is_not_to_be_had_is_an_error_without_a_traceback(commands, queue, what, command):
    variables, says = BROKEN[what]
    server = commands.service.environment["BROKER_URL"].rpartition("/")[0]
    variables = {variable: value.format(server=server) for variable, value in variables.items()}
    if command == "queues":
        if what == "no broker":
            variables["BROKER_MANAGEMENT_URL"] = "http://127.0.0.1:9"
        says = {"no virtual host": "", "wrong password": "the management API does not accept"}.get(what, says)
    if command.startswith("send"):
        says = ""
    commands.run(*command.format(queue=queue).split(), status=2, **variables)
    assert says in commands.errors
    assert "secret-word" not in commands.errors
    assert commands.errors.startswith("Error: ")


def test_queue_when_it_is_not_declared_then_is_an_error(commands, queue):
    server = commands.service.environment["BROKER_MANAGEMENT_URL"]
    broker.ask(server, "PUT", "vhosts/undeclared")
    try:
        every = dict.fromkeys(("configure", "write", "read"), ".*")
        broker.ask(server, "PUT", f"permissions/undeclared/{broker.USERNAME}", every)
        there = {"BROKER_URL": commands.service.environment["BROKER_URL"].rpartition("/")[0] + "/undeclared"}
        for command in (("dlq", "list", queue), ("queues",)):
            commands.run(*command, status=2, **there)
            assert "workers and producers declare the queues" in " ".join(commands.errors.split())
        assert broker.ask(server, "GET", "queues/undeclared") == []
    finally:
        broker.ask(server, "DELETE", "vhosts/undeclared")


def test_redrive_moves_everything_back_to_be_tried_as_if_new(quiet, commands, queue):
    assert "messages to move" in commands.run("dlq", "redrive", queue)
    put(quiet, [*(celery_body(n) for n in range(225)), "foreign"], headers={**REASON, "mine": "kept"})
    assert "226 messages would be moved" in commands.run("dlq", "redrive", queue, "--dry-run")
    assert "completed: 226 of 226 messages moved" in commands.run("dlq", "redrive", queue)
    assert eventually(lambda: (visible(quiet), visible(quiet, dead=False)) == (0, 226))
    moved = take(quiet, dead=False)
    assert [message.body.decode() for message in moved] == [*(celery_body(n) for n in range(225)), "foreign"]
    for number, message in enumerate(moved):
        assert message.headers["mine"] == "kept"
        assert message.headers.get("MessageGroupId") == (f"group-{number}" if number < 225 else None)
        assert not [left for left in message.properties["application_headers"] if left in REASON or left == "x-death"]


def test_redrive_is_slowed_down_and_stopped(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(100)])
    terminal = commands.terminal("dlq", "redrive", queue, "--rate", "10")
    assert eventually(lambda: visible(quiet, dead=False) >= 20)
    terminal.sendintr()
    terminal.expect("stopped: [0-9]+ of 100 messages moved")
    terminal.wait()
    assert terminal.exitstatus == 1
    moved = int(terminal.after.split()[1])
    assert 20 <= moved < 100
    assert eventually(lambda: (visible(quiet), visible(quiet, dead=False)) == (100 - moved, moved))


def test_redrive_when_the_broker_goes_away_then_says_how_many_were_moved(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(100)])
    with faulty(quiet) as (between, variables):
        moving = commands.start("dlq", "redrive", queue, "--rate", "10", **variables)
        assert eventually(lambda: visible(quiet, dead=False) >= 20)
        between.cut()
        said, errors = moving.communicate(timeout=60)
    assert moving.returncode == 2
    assert re.fullmatch(r"stopped: ([1-9][0-9]) of 100 messages moved to \S+\n", said), said
    assert re.search(r"^Error: .+: \S+", errors, re.DOTALL), errors


def test_export_when_the_broker_goes_away_then_says_how_many_it_wrote(quiet, commands, queue, tmp_path):
    put(quiet, [celery_body(n) + " " * 2_000 for n in range(3_000)])
    file = tmp_path / "messages.jsonl"
    with faulty(quiet) as (between, variables):
        exporting = commands.start("dlq", "export", queue, file, **variables)
        assert eventually(lambda: file.exists() and file.stat().st_size)
        between.cut()
        _, errors = exporting.communicate(timeout=60)
    assert exporting.returncode == 2
    assert f"stopped: {len(exported_bodies(file))} messages written to" in errors


def test_explanation_when_an_error_has_no_text_then_names_it():
    explanation = module("environment.rabbitmq").explanation
    assert explanation(TimeoutError()) == "the broker in BROKER_URL does not respond: TimeoutError"


def test_message_when_no_queue_is_bound_then_is_kept(quiet, commands, queue):
    put(quiet, [celery_body(1), "foreign", "foreign too"])
    with channel(quiet) as opened:
        for key in (queue, f"#.{queue}"):
            opened.queue_unbind(queue, "tasks", key)
    commands.run("dlq", "redrive", queue, status=1)
    assert "no queue is bound for it" in commands.errors
    commands.run("dlq", "resend", queue, "--older-than", "0.0s", "--task", "leave_trace", status=1)
    assert eventually(lambda: visible(quiet) == 3)  # Whoever connects as the service does binds it again.
    commands.run("dlq", "redrive", queue)


def test_resend_moves_single_ones_with_what_belongs_to_them(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(3)], headers={**REASON, "mine": [1, {"deep": "ü"}]}, priority=3)
    put(quiet, [celery_body(7)], headers={"task": "pkg.tasks.high.other"})
    assert "1 message would be sent" in commands.run("dlq", "resend", queue, "--id", "00000001", "--dry-run")
    assert eventually(lambda: visible(quiet) == 4)
    assert "1 message sent" in commands.run("dlq", "resend", queue, "--id", "00000001")
    assert eventually(lambda: (visible(quiet), visible(quiet, dead=False)) == (3, 1))
    (message,) = take(quiet, dead=False)
    assert message.body.decode() == celery_body(1)
    assert message.headers["mine"] == [1, {"deep": "ü"}]
    assert message.properties["priority"] == 3
    assert "FailureException" not in message.headers
    (said,) = commands.lines("dlq", "resend", queue, "--task", "high.other")
    assert said == {"sent": 1, "left": 0}
    commands.run("dlq", "resend", queue, "--id", "99999999", status=2)
    assert "no message" in commands.errors
    assert eventually(lambda: visible(quiet) == 2)


def test_resent_task_is_done(quiet, commands, queue, tmp_path):
    (tmp_path / "notes").mkdir()
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    quiet.start_worker(label="for-a-while")
    try:
        quiet.send("leave_trace", str(tmp_path / "notes"), str(obstacle))
        assert eventually(lambda: visible(quiet) == 1)
        (line,) = commands.lines("dlq", "list", queue, status=1)
        assert line["receive_count"] == quiet.queue.max_receive_count
        assert line["age_seconds"] < 100
        assert "still there" in line["reason"]
        obstacle.unlink()
        tried = len(notes(tmp_path / "notes"))
        commands.run("dlq", "resend", queue, "--id", line["id"])
        assert eventually(lambda: len(notes(tmp_path / "notes")) == tried + 1)
        assert eventually(lambda: (visible(quiet), visible(quiet, dead=False)) == (0, 0))
    finally:
        quiet.stop_workers()


def test_export_and_import_are_a_round_trip(quiet, commands, queue, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    headers = {
        **REASON,
        "text": "ü\n",
        "table": {"$base64": "not ours"},
        "list": [1, 2.5, True, None, {"a": "b"}],
        "large": 2**40,
        "time": datetime(2026, 1, 2, 3, 4, 5),
        "price": Decimal("1.5"),
    }
    everything = [*(celery_body(n) for n in range(20)), 'odd "text" \u2028 漢 \U0001f370', bytes(range(256)), ""]
    put(quiet, everything, headers=headers, timestamp=1_700_000_000, content_type="x/y", message_id="mine-and-yours")
    assert "23 messages written" in commands.run("dlq", "export", queue, first)
    assert first.stat().st_mode & 0o077 == 0
    assert eventually(lambda: visible(quiet) == 23)
    commands.run("dlq", "export", queue, first, status=2)
    assert "was not overwritten" in commands.errors
    piped = tmp_path / "piped.jsonl"
    piped.write_text(commands.run("dlq", "export", queue, "-"), encoding="utf-8")
    assert "23 messages written to -" in commands.errors
    assert "23 messages would be sent" in commands.run("dlq", "import", queue, piped, "--dry-run")
    assert len(commands.lines("dlq", "export", queue, "-")) == 23
    assert json.loads(commands.errors)["written"] == 23
    commands.run("dlq", "purge", queue, "--yes")
    assert eventually(lambda: visible(quiet) == 0)
    assert "23 messages would be sent" in commands.run("dlq", "import", queue, first, "--dry-run")
    assert visible(quiet) == 0
    assert "23 messages sent" in commands.run("dlq", "import", queue, first)
    commands.run("dlq", "export", queue, second)
    assert sorted(second.open()) == sorted(first.open())
    assert "23 messages sent" in commands.run("dlq", "import", queue, first, "--to", "queue")
    found = take(quiet, dead=False)
    sent = [each if isinstance(each, bytes) else each.encode() for each in everything]
    assert sorted(message.body or b"" for message in found) == sorted(sent)
    kept = {key: value for key, value in headers.items() if key not in REASON}
    assert all(kept.items() <= message.headers.items() for message in found)
    assert all(message.properties["timestamp"] == 1_700_000_000 for message in found)
    assert all(message.properties["content_type"] == "x/y" for message in found)


def test_export_removes_what_is_on_the_disk(quiet, commands, queue, tmp_path):
    put(quiet, [celery_body(n) for n in range(260)])
    file = tmp_path / "messages.jsonl"
    commands.run("dlq", "export", queue, "-", "--remove", status=2)
    assert "260 messages would be written" in commands.run("dlq", "export", queue, file, "--dry-run")
    assert not file.exists()
    assert "260 messages written" in commands.run("dlq", "export", queue, file, "--remove")
    assert visible(quiet) == 0
    assert sorted(exported_bodies(file)) == sorted(celery_body(n) for n in range(260))


def test_import_checks_the_whole_file_first(quiet, commands, queue, tmp_path):
    file = tmp_path / "messages.jsonl"
    put(quiet, [celery_body(1)])
    commands.run("dlq", "export", queue, file)
    with file.open("a") as more:
        more.write('{"body": "x"}\n')
    commands.run("dlq", "import", queue, file, status=2)
    assert "line 2" in commands.errors
    file.write_bytes(b"\xff\x00")
    commands.run("dlq", "import", queue, file, status=2)
    assert "line 1" in commands.errors
    assert eventually(lambda: visible(quiet) == 1)


def test_purge_wants_the_name_and_offers_the_export(quiet, commands, queue, tmp_path):
    put(quiet, [celery_body(n) for n in range(3)])
    assert "about 3 messages would be deleted" in commands.run("dlq", "purge", queue, "--dry-run")
    commands.run("dlq", "purge", queue, status=2)  # Nobody is there to answer.
    assert visible(quiet) == 3
    full = name(quiet)
    file = tmp_path / "kept.jsonl"

    with_mistake = commands.terminal("dlq", "purge", queue)
    with_mistake.expect("Export them first")
    with_mistake.sendline("n")
    with_mistake.expect(f"Type {full}")
    with_mistake.sendline(queue)
    with_mistake.expect("nothing was deleted")
    with_mistake.expect("\n")
    with_mistake.wait()
    assert (with_mistake.exitstatus, visible(quiet)) == (2, 3)

    given_up = commands.terminal("dlq", "purge", queue)
    given_up.expect("Export them first")
    interrupt(given_up, "no message is lost")
    given_up.wait()
    assert (given_up.exitstatus, visible(quiet)) == (2, 3)

    well = commands.terminal("dlq", "purge", queue)
    well.expect("Export them first")
    well.sendline("")
    well.expect("To which file")
    well.sendline(str(file))
    well.expect(f"Type {full}")
    put(quiet, [celery_body(99)])  # Nobody has been asked about this one.
    well.sendline(full)
    well.expect("3 messages written to .* and deleted")
    well.wait()
    assert well.exitstatus == 0
    assert len(exported_bodies(file)) == 3
    assert bodies(quiet, dead=True) == [celery_body(99)]


def test_colour_and_progress_are_for_terminals_only(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(30)])
    terminal = commands.terminal("dlq", "list", queue)
    terminal.expect("reading")
    terminal.expect("30 dead-letter messages")
    terminal.wait()
    assert "\x1b[1m" in terminal.before  # The header is bold.


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_peek_when_it_is_interrupted_then_releases(quiet, commands, queue, signal_number):
    put(quiet, [celery_body(n) + " " * 2_000 for n in range(3_000)])
    exporting = commands.start("dlq", "export", queue, "-")
    assert eventually(lambda: visible(quiet) < 3_000)
    exporting.send_signal(signal_number)
    _, errors = exporting.communicate(timeout=60)
    if signal_number != signal.SIGKILL:
        assert exporting.returncode == 2
        assert "no message is lost" in errors
    assert eventually(lambda: visible(quiet) == 3_000)


KILLED = {
    "list": ("list", "{queue}"),
    "resend": ("resend", "{queue}", "--task", "library.probes.leave_trace"),
    "export": ("export", "{queue}", "{file}", "--remove"),
    "import": ("import", "{queue}", "{given}"),
    "redrive": ("redrive", "{queue}"),
    "redrive slowly": ("redrive", "{queue}", "--rate", "100"),
}


@pytest.mark.parametrize("what", KILLED)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
@pytest.mark.timeout(300)
def test_killed_in_the_middle_many_times_loses_nothing(quiet, commands, queue, tmp_path, what, how):
    total = 3_000
    everything = [celery_body(n) for n in range(total)]
    put(quiet, everything)
    given = tmp_path / "given.jsonl"
    if what == "import":
        commands.run("dlq", "export", queue, given)
        commands.run("dlq", "purge", queue, "--yes")
    start_seconds = commands.seconds_to_look(queue, status=int(what != "import"))
    files = []
    killed = 0
    while killed < 3 and len(files) < 12:
        if what != "import" and visible(quiet) < total // 2:  # So that there is always a middle to be killed in.
            more = [celery_body(n) for n in range(len(everything), len(everything) + total)]
            put(quiet, more)
            everything += more
        files.append(tmp_path / f"{len(files)}.jsonl")
        arguments = [text.format(queue=queue, file=files[-1], given=given) for text in KILLED[what]]
        seconds = random.uniform(0.6, 1.3) * start_seconds
        killed += commands.killed("dlq", *arguments, after_seconds=seconds, how=how) != 0
    assert killed == 3
    if what == "import":
        commands.run("dlq", "import", queue, given)
    found: list[str] = []

    def all_found():  # RabbitMQ requeues the messages of a closed connection.
        found.extend(bodies(quiet, dead=True) + bodies(quiet, dead=False))
        return set(found).union(*map(exported_bodies, files)) == set(everything)

    assert eventually(all_found, 60)
    exported = sum(len(exported_bodies(file)) for file in files)
    # What is twice was confirmed and not yet acknowledged, or written and not yet deleted: two pages each time.
    assert what == "import" or len(found) + exported <= len(everything) + 200 * len(files)


def test_purge_killed_in_the_middle_many_times_deletes_only_what_it_has_exported(quiet, commands, queue, tmp_path):
    everything: list[str] = []
    files = []
    start_seconds = commands.seconds_to_look(queue)
    for number in range(8):
        more = [celery_body(n) for n in range(number * 1_000, (number + 1) * 1_000)]
        put(quiet, more)
        everything += more
        files.append(tmp_path / f"{number}.jsonl")
        answers = f"y\n{files[-1]}\n{name(quiet)}\n"
        written = files[-1] if number % 2 else None
        seconds = random.uniform(0, 0.1) if written else random.uniform(0.4, 1.4) * start_seconds
        commands.killed("dlq", "purge", queue, answers=answers, after_seconds=seconds, written=written)
    assert any(exported_bodies(file) for file in files)
    found: set[str] = set().union(*map(exported_bodies, files))

    def all_found():  # RabbitMQ requeues the messages of a closed connection.
        found.update(bodies(quiet, dead=True))
        return found == set(everything)

    assert eventually(all_found, 60)


def test_thousands_in_bounded_memory_and_time(quiet, commands, queue, tmp_path):
    total = 3_000  # Of 90 MB together.
    put(quiet, (celery_body(n) + " " * 30_000 for n in range(total)))
    measure = (
        "import json, runpy, sys, time\n"
        "began = time.monotonic()\n"
        "try:\n"
        f"    runpy.run_module({COMMAND[2]!r}, run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        f"    exec({PEAK_MEBIBYTES!r})\n"
        "    print(json.dumps([peak_mebibytes, time.monotonic() - began]), file=sys.stderr)\n"
    )

    def run(*arguments, status=0):
        done = quiet.python("-c", measure, "dlq", *arguments)
        assert done.returncode == status, done.stderr[-2000:]
        peak_mebibytes, seconds = json.loads(done.stderr.splitlines()[-1])
        assert peak_mebibytes < 150
        assert seconds < 60
        return done.stdout

    for _ in range(2):  # The second command sees what the first has released.
        assert f"{total} dead-letter messages" in run("list", queue, status=1)
    file = tmp_path / "all.jsonl"
    assert f"{total} messages written" in run("export", queue, str(file))
    with file.open() as lines:
        assert len({json.loads(line)["id"] for line in lines}) == total
    assert f"{total} of {total} messages moved" in run("redrive", queue)
    assert eventually(lambda: visible(quiet, dead=False) == total)
    assert f"{total} messages sent" in run("import", queue, str(file))
    assert f"{total} messages deleted" in run("purge", queue, "--yes")
