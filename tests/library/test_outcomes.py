"""A state is final once: how often a task runs, and its errbacks, links and chords, whatever its base and its end."""

from __future__ import annotations

import json

import pytest
from celery import chord, group

from library import probes
from library.support import CONTRACT, HAS_RESULTS, broker, eventually, module, notes, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

errors = module("errors")

ATTEMPTS = 3


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A service with short limits and three attempts, and its worker."""
    with running_service(
        tmp_path_factory.mktemp("logs"), 20, soft_limit_seconds=3, hard_limit_seconds=5, max_receive_count=ATTEMPTS
    ) as running:
        running.start_worker()
        assert running.ready(), running.log()
        yield running


@pytest.fixture
def told(strict, tmp_path):
    """Send a task with an errback and a link, wait for its end, and return how often each ran."""

    def end(name, *args, **options):
        folders = [tmp_path / what for what in ("runs", "errbacks", "links")]
        for folder in folders:
            folder.mkdir()
        runs, errbacks, links = map(str, folders)
        task = strict.probe(name, runs, *args, **options)
        task.link_error(strict.probe("mark", errbacks, ".errback"))
        task.link(strict.probe("mark", links, ".link"))
        with strict.reached():
            result = task.apply_async()
        assert eventually(lambda: strict.dead() or notes(folders[2])), strict.log()
        assert eventually(lambda: strict.waiting() == 0), strict.log()
        if HAS_RESULTS:
            assert eventually(lambda: strict.state(result) in ("SUCCESS", "FAILURE")), strict.log()
        return (*(len(notes(folder)) for folder in folders), strict.dead()), result

    yield end
    broker.empty(strict, dead=True)


def lines_about(service, result):
    """Return the log lines with an outcome about a task."""
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("task_id") == result.id and "outcome" in line]


@pytest.mark.parametrize(
    "name", ["fail_once_plain", "fail_once_calling", "fail_once_hooked", "fail_once_class", "stumble"]
)
def test_task_of_any_base_when_it_fails_once_then_only_its_link_runs(told, tmp_path, name):
    counts, _ = told(name)
    assert counts == (1 if name == "stumble" else 2, 0, 1, 0)
    if name != "stumble":
        assert [note.suffix for note in notes(tmp_path / "runs")] == [".redelivered=False", ".redelivered=True"]


def test_task_when_it_calls_others_in_place_then_its_own_end_counts(told, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    assert told("call_others", str(others))[0] == (2, 0, 1, 0)
    assert len(notes(others)) == 4


def test_task_when_it_has_expired_then_is_revoked_and_deleted(strict, tmp_path):
    result = strict.send("leave_trace", str(tmp_path), expires=0.001)
    assert eventually(lambda: strict.waiting() == 0), strict.log()
    assert (notes(tmp_path), strict.dead()) == ([], 0)
    if HAS_RESULTS:
        assert eventually(lambda: strict.state(result) == "REVOKED"), strict.log()


@pytest.mark.skipif(not HAS_RESULTS, reason="chords need results")
@pytest.mark.parametrize("name", ["fail_once_plain", "fail_once_class"])
def test_chord_when_a_task_of_another_base_fails_once_then_succeeds(strict, tmp_path, name):
    steps = [strict.probe(name, str(tmp_path)) for _ in range(2)]
    body = strict.probe("follow", str(tmp_path))
    with strict.reached():
        result = chord(steps, body, app=strict.app).apply_async(MessageGroupId="g")
    assert eventually(lambda: strict.state(result) == "SUCCESS"), strict.log()
    assert len(notes(tmp_path)) == 5
    assert strict.dead() == 0


FINAL = ("Reject", "Reject with an error")


@pytest.mark.parametrize("kind", probes.ENDS)
def test_task_when_it_ends_with_anything_then_is_failed_and_dead_lettered_once(strict, told, kind):
    counts, result = told("end_with", kind)
    attempts = 1 if kind in FINAL else ATTEMPTS
    assert counts == (attempts, 1, 0, 1), strict.log()
    assert strict.workers[strict.worker.name].poll() is None
    assert "Unrecoverable" not in strict.log()
    lines = lines_about(strict, result)
    assert [line["outcome"] for line in lines] == ["retrying"] * (attempts - 1) + [
        "rejected" if kind in FINAL else "dead_lettered"
    ]
    assert [line["level"] for line in lines].count("ERROR") == 1
    assert len([line for line in strict.log().splitlines() if result.id in line and '"ERROR"' in line]) == 1
    assert lines[-1]["level"] == "ERROR"
    assert max(len(json.dumps(line)) for line in lines) < 90_000
    reason = broker.see_dead(strict).reason["FailureException"]
    assert {"BadRepr": "BadRepr", "Huge": "ValueError", "Reject with an error": "why"}.get(kind, "") in reason


@pytest.mark.parametrize("name", ["die_in_errback", "hang_in_errback"])
def test_task_when_its_errback_ends_the_process_then_is_not_run_again(strict, tmp_path, name):
    task = strict.probe("despair", str(tmp_path))
    task.link_error(strict.probe(name))
    with strict.reached():
        result = task.apply_async()
    assert eventually(lambda: strict.dead() == 1), strict.log()
    assert eventually(lambda: strict.waiting() == 0), strict.log()
    assert len(notes(tmp_path)) == 1
    assert [line["outcome"] for line in lines_about(strict, result)] == ["dead_lettered"]
    broker.empty(strict, dead=True)


def test_task_when_it_closes_standard_error_then_ends_like_others(strict, told):
    counts, _ = told("fail_silenced")
    assert counts == (ATTEMPTS, 1, 0, 1)
    assert "the reason" in broker.see_dead(strict).reason["FailureException"]
    # That process logs nothing any longer.
    strict.stop_workers()
    strict.workers.clear()
    strict.start_worker()
    assert strict.ready(), strict.log()


def test_task_when_it_forks_then_ends_once(told):
    assert told("fork")[0] == (1, 0, 1, 0)


@pytest.mark.skipif(not HAS_RESULTS, reason="chords need results")
def test_chord_when_a_chord_in_it_fails_then_fails_once(strict, tmp_path):
    folders = [tmp_path / what for what in ("inner", "outer", "errbacks")]
    for folder in folders:
        folder.mkdir()
    inner, outer, errbacks = map(str, folders)
    header = [strict.probe("leave_trace", str(tmp_path)), strict.probe("despair", str(tmp_path))]
    body = strict.probe("mark", outer, ".body").on_error(strict.probe("mark", errbacks, ".errback"))
    within = chord(header, strict.probe("mark", inner, ".body"), app=strict.app)
    with strict.reached():
        result = chord([within, strict.probe("leave_trace", str(tmp_path))], body, app=strict.app).apply_async(
            MessageGroupId="g"
        )
    assert eventually(lambda: strict.state(result) == "FAILURE"), strict.log()
    assert eventually(lambda: strict.waiting() == 0), strict.log()
    assert [len(notes(folder)) for folder in folders] == [0, 0, 1]
    broker.empty(strict, dead=True)


def test_task_when_its_hook_raises_then_is_failed_and_dead_lettered_once(told):
    assert told("fail_hooked")[0] == (ATTEMPTS, 1, 0, 1)


@pytest.mark.parametrize("name", ["exit_now", "exit_python", "end_by_signal"])
def test_task_when_it_ends_its_process_then_is_failed_and_dead_lettered_once(told, name):
    assert told(name)[0] == (ATTEMPTS, 1, 0, 1)


def test_task_when_its_process_dies_after_it_succeeded_then_is_not_run_again(strict, told):
    counts, result = told("die_after_settling")
    assert counts == (1, 0, 1, 0), strict.log()
    if HAS_RESULTS:
        assert strict.state(result) == "SUCCESS"


def test_task_when_its_process_dies_after_its_last_failure_then_is_dead_lettered_once(told):
    assert told("fail_and_die")[0] == (ATTEMPTS, 1, 0, 1)


KINDS = [kind for kind in probes.UNSTORABLE if kind != "large" or CONTRACT["results"] == "dynamodb"]


@pytest.mark.parametrize("kind", KINDS)
def test_task_when_its_result_cannot_be_stored_then_fails_once_with_the_reason(strict, told, kind):
    counts, result = told("return_what_cannot_be_stored", kind)
    assert counts == (1, 1, 0, 1), strict.log()
    (line,) = lines_about(strict, result)
    assert (line["outcome"], line["level"]) == ("dead_lettered", "ERROR")
    assert "the task returned" in broker.see_dead(strict).reason["FailureException"]
    if HAS_RESULTS:
        with strict.reached():
            assert "the task returned" in str(result.result)


def test_chain_when_its_next_step_is_too_large_then_fails_once_after_one_run(strict, tmp_path):
    room = strict.contract.max_message_bytes
    errbacks = tmp_path / "errbacks"
    errbacks.mkdir()
    (tmp_path / "runs").mkdir()
    first = strict.probe("return_text", str(tmp_path / "runs"), room)
    first.link_error(strict.probe("mark", str(errbacks), ".errback"))
    with strict.reached():
        (first | strict.probe("follow", str(errbacks))).apply_async()
    assert eventually(lambda: strict.dead() == 1), strict.log()
    assert eventually(lambda: strict.waiting() == 0)
    assert [note.suffix for note in notes(errbacks)] == [".errback"]
    assert len(notes(tmp_path / "runs")) == 1
    assert "max_message_bytes" in broker.see_dead(strict).reason["FailureException"]
    broker.empty(strict, dead=True)


@pytest.mark.parametrize("name", ["retry_in", "retry_with_long_backoff"])
def test_task_when_its_retry_is_refused_then_fails_once_with_the_reason(strict, told, name):
    longest = strict.app.longest_countdown_seconds(strict.queue)
    counts, result = told(name, *([longest + 10] if name == "retry_in" else []))
    assert counts == (1, 1, 0, 1), strict.log()
    (line,) = lines_about(strict, result)
    assert (line["outcome"], line["level"]) == ("dead_lettered", "ERROR")
    assert "allows" in broker.see_dead(strict).reason["FailureException"]


def test_hard_limit_of_a_task_alone_when_shorter_than_the_soft_one_of_its_queue_then_holds(strict, tmp_path):
    strict.send("overrun", str(tmp_path), 30, True, time_limit=1)
    assert eventually(lambda: len(notes(tmp_path)) >= 2, 15), strict.log()
    assert ".told" not in [note.suffix for note in notes(tmp_path)]
    assert eventually(lambda: strict.dead() == 1), strict.log()
    broker.empty(strict, dead=True)


def test_message_with_an_eta_too_far_ahead_when_received_then_is_dead_lettered_once(strict, tmp_path):
    """As a plain Celery client sends it, who knows nothing of the contract."""
    far = strict.queue.visibility_timeout_seconds * 2
    broker.send_foreign(strict, "library.probes.leave_trace", [str(tmp_path)], eta_in_seconds=far)
    assert eventually(lambda: strict.dead() == 1), strict.log()
    assert eventually(lambda: strict.waiting() == 0)
    assert notes(tmp_path) == []
    assert "ETA" in broker.see_dead(strict).reason["FailureException"]
    broker.empty(strict, dead=True)


@pytest.mark.parametrize("what", ["chain", "group", "chord", "link", "link_error"])
def test_canvas_when_a_part_of_it_cannot_be_honoured_then_is_refused_whole(strict, tmp_path, what):
    fine = strict.probe("leave_trace", str(tmp_path))
    late = strict.probe("follow", str(tmp_path), countdown=2_000_000)
    if what == "chord" and not HAS_RESULTS:
        pytest.skip("chords need results")

    def with_following(how):
        getattr(fine, how)(late)
        return fine

    canvas = {
        "chain": lambda: fine | late,
        "group": lambda: group([fine, late], app=strict.app),
        "chord": lambda: chord([fine], late, app=strict.app),
        "link": lambda: with_following("link"),
        "link_error": lambda: with_following("link_error"),
    }[what]()
    with strict.reached(), pytest.raises(errors.CountdownTooLongError, match="follow was not sent: its countdown is"):
        canvas.apply_async(MessageGroupId="g")
    assert strict.waiting() == 0
    assert notes(tmp_path) == []


def test_unknown_task_when_a_chord_waits_for_it_then_fails_the_chord(strict, tmp_path):
    if not HAS_RESULTS:
        pytest.skip("chords need results")
    unknown = strict.app.signature("library.probes.of_a_newer_version", args=("x",))
    unknown.set(queue=strict.contract.celery_name(strict.queue), MessageGroupId="g")
    body = strict.probe("follow", str(tmp_path))
    with strict.reached():
        result = chord([unknown, strict.probe("leave_trace", str(tmp_path))], body, app=strict.app).apply_async(
            MessageGroupId="g"
        )
    assert eventually(lambda: strict.state(result) == "FAILURE", 60), strict.log()
    broker.empty(strict, dead=True)
