"""The `dlq` command on SQS: peeking, moving and exporting; no message is lost, whatever happens."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
from unittest import mock

import pytest

from celery_aws import dlq as dead_letters
from library.commands import COMMAND, PEAK_MEBIBYTES, Commands, exported_bodies, interrupt
from library.sqs.messages import bodies, celery_body, put
from library.support import IS_FIFO, eventually, module, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A service without a worker, whose queues may be purged more often than once a minute."""
    often = {"MOTO_SQS_ENFORCE_STRICT_QUEUE_PURGE_BEHAVIOUR": "false"}
    with mock.patch.dict(os.environ, often), running_service(tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture
def commands(quiet):
    """Its command, with empty queues."""
    for dead in (True, False):
        quiet.client("sqs").purge_queue(QueueUrl=quiet.url(dead=dead))
    return Commands(quiet)


@pytest.fixture
def queue(quiet):
    return quiet.queue.name


def visible(service, dead=True):
    name = "ApproximateNumberOfMessages"
    return int(
        service.client("sqs").get_queue_attributes(QueueUrl=service.url(dead=dead), AttributeNames=[name])[
            "Attributes"
        ][name]
    )


def test_list_tells_what_there_is_and_gives_it_back(quiet, commands, queue):
    assert "0 dead-letter messages" in commands.run("dlq", "list", queue)
    twice = base64.b64encode(celery_body(7, "old.task").encode()).decode()
    put(quiet, [celery_body(n) for n in range(12)] + [twice, "{}", "foreign \x9b31m[red]"])
    text = {"DataType": "String", "StringValue": "ValueError('no')"}
    reason = {"FailureException": text}
    put(quiet, [celery_body(99)], MessageAttributes=reason, MessageGroupId="other")
    said = commands.run("dlq", "list", queue, status=1)
    assert all(len(line) <= 80 for line in said.splitlines()), said
    assert not {"\x1b", "\x9b"} & set(said)
    assert "16 dead-letter messages" in said
    assert "ValueError('no')" in said
    assert "(not Celery)" in said
    assert "old.task" in said
    assert "13 x library.probes.leave_trace" in said
    listed = commands.lines("dlq", "list", queue, status=1)
    assert len(listed) == 16
    assert {line["id"] for line in listed} >= {f"{n:08d}-aaaa" for n in range(12)}
    assert {line["group"] for line in listed} == {"other", *(f"group-{n}" for n in range(15))}
    assert [line["reason"] for line in listed if line["id"].startswith("00000099")] == ["ValueError('no')"]
    assert all(line["receive_count"] >= 1 and line["age_seconds"] < 100 for line in listed)
    assert visible(quiet) == 16


def test_list_selects(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(3)] + [celery_body(9, "pkg.tasks.high.other")])
    assert len(commands.lines("dlq", "list", queue, "--task", "high.other", status=1)) == 1
    assert len(commands.lines("dlq", "list", queue, "--task", "igh.other", status=0)) == 0
    assert len(commands.lines("dlq", "list", queue, "--id", "00000002", "--id", "00000001-aaaa", status=1)) == 2
    assert len(commands.lines("dlq", "list", queue, "--older-than", "1h", status=0)) == 0
    assert len(commands.lines("dlq", "list", queue, "--limit", "2", status=1)) == 2
    dead = quiet.queue_name(dead=True)
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
    assert visible(quiet) == 4


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


TRACEBACK = f'File "/{"folder/" * 20}x.py"\n  boom()'
"""With a path that is longer than a line."""


def test_show_tells_all_of_one(quiet, commands, queue):
    reason = {
        name: {"DataType": "String", "StringValue": text}
        for name, text in (
            ("FailureException", "ValueError('no')"),
            ("FailureTraceback", TRACEBACK),
            ("FailureAttempt", "2"),
            ("FailureHost", "host-7"),
        )
    }
    put(quiet, [celery_body(1)], MessageAttributes=reason)
    put(quiet, ["not a Celery message"], MessageGroupId="other")
    said = commands.run("dlq", "show", queue, "--id", "00000001")
    for text in ('["argument 1"]', "ValueError('no')", TRACEBACK, "host-7", "group-0", "library.probes.leave_trace"):
        assert text in said
    (shown,) = commands.lines("dlq", "show", queue, "--id", "00000001")
    assert shown["body"] == celery_body(1)
    assert shown["attributes"] == reason
    foreign = next(line for line in commands.lines("dlq", "list", queue, status=1) if not line["task"])
    assert "not a Celery message" in commands.run("dlq", "show", queue, "--id", foreign["message_id"])
    commands.run("dlq", "show", queue, "--id", "99999999", status=2)
    assert "no message in" in commands.errors
    assert visible(quiet) == 2


def test_show_when_a_message_is_unreadable_then_shows_its_body(quiet, commands, queue):
    text = {
        name: {"DataType": "String", "StringValue": f"{name}: of Celery"}
        for name in ("FailureException", "FailureTraceback")
    }
    body = {**json.loads(celery_body(1)), "body": "\x1b<order/>" + "x" * 3_000, "content-type": "text/xml"}
    put(quiet, [json.dumps(body)], MessageAttributes=text)
    said = commands.run("dlq", "show", queue, "--id", "00000001")
    assert "text/xml" in said
    assert "<order/>xxx" in said
    assert "more characters; --json shows all" in " ".join(said.split())
    assert "x" * 2_500 not in "".join(said.split())
    assert not {"boom()", "FailureTraceback:", "\x1b"} & set(said.split())


def test_what_strangers_send_does_no_harm(quiet, commands, queue):
    odd = celery_body(1).replace("library.probes", "\\ud800\\u001b[31m").replace("00000001", "\\ud800\\u001b]0;x")
    put(quiet, [odd])
    (line,) = commands.lines("dlq", "list", queue, status=1)
    assert (line["id"], line["task"]) == ("\ud800\x1b]0;x-aaaa", "\ud800\x1b[31m.leave_trace")
    assert commands.lines("dlq", "show", queue, "--id", line["message_id"])[0]["body"] == odd
    commands.run("dlq", "list", queue, status=1, PYTHONIOENCODING="ascii")
    terminal = commands.terminal("dlq", "resend", queue, "--task", "leave_trace", "--dry-run")
    terminal.expect("1 message would be sent")
    assert "would resend" in terminal.before
    assert not re.search("\x1b(\\[31m|])", terminal.before)
    terminal.wait()


def test_mistakes_are_errors_without_a_traceback(commands, queue):
    assert "no queue 'nope'" in (commands.run("dlq", "list", "nope", status=2) or commands.errors)
    commands.run("dlq", "list", queue, "--environment", "nowhere", status=2)
    assert "Check --environment" in commands.errors
    commands.run("dlq", "list", queue, "--environment", "Not one", status=2)
    commands.run("dlq", "list", queue, ENVIRONMENT="", status=2)
    commands.run("dlq", "list", queue, AWS_ENDPOINT_URL="http://127.0.0.1:9", status=2)
    assert "Could not connect" in commands.errors
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONFIG_FILE": "/dev/null"}
    commands.run("dlq", "list", queue, AWS_SHARED_CREDENTIALS_FILE="/dev/null", **nothing, status=2)
    assert "no AWS credentials" in commands.errors
    commands.run("dlq", "resend", queue, status=2)
    assert "select messages with" in commands.errors


def test_redrive_moves_everything_back(quiet, commands, queue):
    assert "messages to move" in commands.run("dlq", "redrive", queue)
    put(quiet, [celery_body(n) for n in range(25)] + ["foreign"])
    assert "26 messages would be moved" in commands.run("dlq", "redrive", queue, "--dry-run")
    assert "completed: about 26 of 26 messages moved" in commands.run("dlq", "redrive", queue)
    assert (visible(quiet), visible(quiet, dead=False)) == (0, 26)
    assert "COMPLETED" in commands.run("dlq", "redrive", queue, "--status")
    (moves,) = commands.lines("dlq", "redrive", queue, "--status")
    assert (moves[0]["ApproximateNumberOfMessagesMoved"], "TaskHandle" in moves[0]) == (26, False)


def test_redrive_is_slowed_down_and_cancelled(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(100)])
    assert "started" in commands.run("dlq", "redrive", queue, "--rate", "1", "--no-wait")
    assert "RUNNING" in commands.run("dlq", "redrive", queue, "--status")
    commands.run("dlq", "redrive", queue, status=2)
    assert "is running" in commands.errors
    assert "cancelled after about" in commands.run("dlq", "redrive", queue, "--cancel")
    assert eventually(lambda: "CANCELLED" in commands.run("dlq", "redrive", queue, "--status"))
    moved = visible(quiet, dead=False)
    assert 0 < moved < 100
    assert visible(quiet) == 100 - moved
    commands.run("dlq", "redrive", queue, "--cancel", status=2)
    assert "no redrive" in commands.errors


def test_redrive_when_options_conflict_then_does_nothing(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(100)])
    commands.run("dlq", "redrive", queue, "--rate", "1", "--no-wait")
    for options in module("cli.sqs.redrive").CONFLICTS:
        commands.run("dlq", "redrive", queue, *options.replace("--rate", "--rate=9").split(), status=2)
        assert "{} and {} cannot be used together".format(*options.split()) in " ".join(commands.errors.split())
    assert "cancelled after" in commands.run("dlq", "redrive", queue, "--cancel")


def test_redrive_when_its_command_is_interrupted_then_continues(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(50)])
    followed = commands.start("dlq", "redrive", queue, "--rate", "5")
    assert eventually(lambda: "RUNNING" in commands.run("dlq", "redrive", queue, "--status"))
    followed.terminate()
    _, said = followed.communicate(timeout=30)
    assert (followed.returncode, "SQS continues the redrive" in said) == (2, True), said
    assert "cancelled after about" in commands.run("dlq", "redrive", queue, "--cancel")


def test_resend_moves_single_ones_with_what_belongs_to_them(quiet, commands, queue):
    attributes = {
        "mine": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        "FailureException": {"DataType": "String", "StringValue": "ValueError('no')"},
    }
    put(quiet, [celery_body(n) for n in range(3)], MessageAttributes=attributes)
    put(quiet, [celery_body(7, "pkg.tasks.high.other")], MessageGroupId="other")
    assert "1 message would be sent" in commands.run("dlq", "resend", queue, "--id", "00000001", "--dry-run")
    assert visible(quiet) == 4
    assert "1 message sent" in commands.run("dlq", "resend", queue, "--id", "00000001")
    assert (visible(quiet), visible(quiet, dead=False)) == (3, 1)
    (message,) = quiet.client("sqs").receive_message(
        QueueUrl=quiet.url(), MessageAttributeNames=["All"], AttributeNames=["All"]
    )["Messages"]
    assert message["Body"] == celery_body(1)
    assert {name: value.get("BinaryValue") for name, value in message["MessageAttributes"].items()} == {
        "mine": b"\x00\xff"
    }
    assert message["Attributes"]["MessageGroupId"] == "group-1"
    (said,) = commands.lines("dlq", "resend", queue, "--task", "high.other")
    assert said == {"sent": 1, "left": 0}
    commands.run("dlq", "resend", queue, "--id", "99999999", status=2)
    assert "no message in" in commands.errors
    assert visible(quiet) == 2


def test_resend_when_a_message_fails_again_at_once_then_sends_it_once(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(2)])
    with quiet.reached():
        dlq = dead_letters.find(queue, "development")
        with dlq.peek() as peek:
            sent = 0
            for page in peek.pages():
                accepted = dead_letters.resend(dlq, peek, page).accepted
                sent += len(accepted)
                put(quiet, [message.body for message in accepted])  # As a worker does.
                assert sent <= 2
    assert (sent, visible(quiet), visible(quiet, dead=False)) == (2, 2, 2)


def test_export_and_import_are_a_round_trip(quiet, commands, queue, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    attributes = {
        "text": {"DataType": "String", "StringValue": "ü\n"},
        "bytes": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
    }
    put(quiet, [celery_body(n) for n in range(20)] + ['odd "text" \u2028 漢 \U0001f370'], MessageAttributes=attributes)
    assert "21 messages written" in commands.run("dlq", "export", queue, first)
    assert first.stat().st_mode & 0o077 == 0
    assert visible(quiet) == 21
    commands.run("dlq", "export", queue, first, status=2)
    assert "was not overwritten" in commands.errors
    piped = tmp_path / "piped.jsonl"
    piped.write_text(commands.run("dlq", "export", queue, "-"), encoding="utf-8")
    assert "21 messages written to -" in commands.errors
    assert "21 messages would be sent" in commands.run("dlq", "import", queue, piped, "--dry-run")
    assert len(commands.lines("dlq", "export", queue, "-")) == 21
    assert json.loads(commands.errors)["written"] == 21
    commands.run("dlq", "purge", queue, "--yes")
    assert visible(quiet) == 0
    assert "21 messages would be sent" in commands.run("dlq", "import", queue, first, "--dry-run")
    assert visible(quiet) == 0
    assert "21 messages sent" in commands.run("dlq", "import", queue, first)
    commands.run("dlq", "export", queue, second)
    kept = ("body", "attributes", "group")

    def content(file):
        return sorted(
            json.dumps([data[name] for name in kept]) for data in map(json.loads, file.read_text().splitlines())
        )

    assert content(second) == content(first)
    for copies in (2, 3):  # SQS would drop a deduplication id that it knows, and not say so.
        assert "21 messages sent" in commands.run("dlq", "import", queue, first)
        assert visible(quiet) == 21 * copies
    for copies in (1, 2):
        assert "21 messages sent" in commands.run("dlq", "import", queue, first, "--to", "queue")
        assert visible(quiet, dead=False) == 21 * copies


def test_export_removes_what_is_on_the_disk(quiet, commands, queue, tmp_path):
    # More than SQS shows of a group of a FIFO queue at a time.
    put(quiet, [celery_body(n) for n in range(60)], groups=2)
    file = tmp_path / "messages.jsonl"
    if IS_FIFO:
        seen = len(commands.lines("dlq", "list", queue, status=1))
        assert 2 <= seen <= 20
        assert f"{60 - seen} more messages not shown: SQS returns ten messages of a group" in commands.errors
        commands.run("dlq", "export", queue, tmp_path / "part.jsonl", status=1)
    commands.run("dlq", "export", queue, "-", "--remove", status=2)
    said = commands.run("dlq", "export", queue, file, "--dry-run", status=int(IS_FIFO))
    assert IS_FIFO or "60 messages would be written" in said
    assert not file.exists()
    assert "60 messages written" in commands.run("dlq", "export", queue, file, "--remove")
    assert visible(quiet) == 0
    assert sorted(exported_bodies(file)) == sorted(celery_body(n) for n in range(60))
    if IS_FIFO:
        even = [body for body in exported_bodies(file) if body in {celery_body(n) for n in range(0, 60, 2)}]
        assert even == [celery_body(n) for n in range(0, 60, 2)]


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
    assert visible(quiet) == 1


def test_purge_wants_the_name_and_offers_the_export(quiet, commands, queue, tmp_path):
    put(quiet, [celery_body(n) for n in range(3)])
    assert "about 3 messages would be deleted" in commands.run("dlq", "purge", queue, "--dry-run")
    commands.run("dlq", "purge", queue, status=2)  # Nobody is there to answer.
    assert visible(quiet) == 3
    name = quiet.queue_name(dead=True)
    file = tmp_path / "kept.jsonl"

    with_mistake = commands.terminal("dlq", "purge", queue)
    with_mistake.expect("Export them first")
    with_mistake.sendline("n")
    with_mistake.expect(f"Type {name}")
    with_mistake.sendline("high")
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
    well.expect(f"Type {name}")
    assert not file.exists()
    well.sendline(name)
    well.expect("3 messages written to .* and deleted")
    well.wait()
    assert (well.exitstatus, visible(quiet)) == (0, 0)
    assert len(exported_bodies(file)) == 3


def test_colour_and_progress_are_for_terminals_only(quiet, commands, queue):
    put(quiet, [celery_body(n) for n in range(30)])
    terminal = commands.terminal("dlq", "list", queue)
    terminal.expect("reading")
    terminal.expect("30 dead-letter messages")
    terminal.wait()
    assert "\x1b[1m" in terminal.before  # The header is bold.


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_peek_when_it_is_interrupted_then_releases(quiet, commands, queue, signal_number):
    put(quiet, [celery_body(n) for n in range(300)])
    exporting = commands.start("dlq", "export", queue, "-")
    assert eventually(lambda: visible(quiet) < 250)
    exporting.send_signal(signal_number)
    _, errors = exporting.communicate(timeout=60)
    assert exporting.returncode == 2
    assert "no message is lost" in errors
    assert visible(quiet) >= 290  # A page in flight becomes visible again.


KILLED = {
    "list": ("list", "{queue}"),
    "resend": ("resend", "{queue}", "--task", "library.probes.leave_trace"),
    "export": ("export", "{queue}", "{file}", "--remove"),
    "import": ("import", "{queue}", "{given}"),
    "redrive": ("redrive", "{queue}", "--rate", "50"),
}


@pytest.mark.parametrize("what", KILLED)
def test_killed_in_the_middle_many_times_loses_nothing(quiet, commands, queue, tmp_path, what):
    total = 400
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
        files.append(tmp_path / f"{len(files)}.jsonl")
        arguments = [text.format(queue=queue, file=files[-1], given=given) for text in KILLED[what]]
        # The measured look waits a second for more messages, which an import does not.
        seconds = random.uniform(0.2, 0.6 if what == "import" else 1.3) * start_seconds
        killed += commands.killed("dlq", *arguments, after_seconds=seconds) == -signal.SIGKILL
    # SQS goes on with a redrive by itself, and the next command ends at once because of it.
    assert killed == 3 or what == "redrive"
    # Messages that a killed command held become visible again.
    assert eventually(lambda: visible(quiet) == quiet.dead(), 60)
    if what == "import":
        commands.run("dlq", "import", queue, given)
    found = bodies(quiet, dead=True) + bodies(quiet, dead=False)
    found += [body for file in files for body in exported_bodies(file)]
    assert set(found) == set(everything)


def test_purge_killed_in_the_middle_many_times_deletes_only_what_it_has_exported(quiet, commands, queue, tmp_path):
    everything: list[str] = []
    files = []
    start_seconds = commands.seconds_to_look(queue)
    for number in range(8):
        more = [celery_body(n) for n in range(number * 100, (number + 1) * 100)]
        put(quiet, more)
        everything += more
        files.append(tmp_path / f"{number}.jsonl")
        answers = f"y\n{files[-1]}\n{quiet.url(dead=True).rpartition('/')[2]}\n"
        written = files[-1] if number % 2 else None
        seconds = random.uniform(0, 0.1) if written else random.uniform(0.4, 1.4) * start_seconds
        commands.killed("dlq", "purge", queue, answers=answers, after_seconds=seconds, written=written)
    assert any(exported_bodies(file) for file in files)
    # Messages that a killed command held become visible again.
    assert eventually(lambda: visible(quiet) == quiet.dead(), 60)
    found = [*bodies(quiet, dead=True), *(body for file in files for body in exported_bodies(file))]
    assert set(found) == set(everything)


@pytest.mark.skipif(IS_FIFO, reason="the emulator takes many minutes for so many of FIFO")
def test_thousand_in_bounded_memory_and_batched_requests(quiet, commands, queue, tmp_path):
    total = 1_000  # Of 90 MB together, as the emulator's time grows with the square of their number.
    put(quiet, (celery_body(n) + " " * 90_000 for n in range(total)))
    measure = (
        "import json, runpy, sys, botocore.client\n"
        "calls = []\n"
        "call = botocore.client.BaseClient._make_api_call\n"
        "def counted(self, name, params):\n"
        "    calls.append(name)\n"
        "    return call(self, name, params)\n"
        "botocore.client.BaseClient._make_api_call = counted\n"
        "try:\n"
        f"    runpy.run_module({COMMAND[2]!r}, run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        f"    exec({PEAK_MEBIBYTES!r})\n"
        "    print(json.dumps([peak_mebibytes, len(calls)]), file=sys.stderr)\n"
    )

    def run(*arguments, status=0):
        done = quiet.python("-c", measure, "dlq", *arguments, timeout_seconds=300)
        assert done.returncode == status, done.stderr[-2000:]
        peak_mebibytes, calls = json.loads(done.stderr.splitlines()[-1])
        assert peak_mebibytes < 150
        return done.stdout, calls

    listed, calls = run("list", queue, status=1)
    assert f"{total} dead-letter messages" in listed
    assert calls < 2.2 * total / 10
    file = tmp_path / "all.jsonl"
    written, calls = run("export", queue, str(file))
    assert f"{total} messages written" in written
    assert calls < 2.2 * total / 10
    with file.open() as lines:
        assert len({json.loads(line)["id"] for line in lines}) == total
    moved, _ = run("redrive", queue)
    assert f"about {total} of {total} messages moved" in moved
    assert visible(quiet, dead=False) == total
