"""The projects' tests of delivery can fail: each protection, taken out alone, is missed by one of them.

What each costs: a lost or repeated task, a worker that ends or stalls, an order that does not hold.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
from conftest import label, show

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Mutant:
    """One protection taken out, and the test that is to miss it."""

    file: str
    right: str
    wrong: str
    test: str
    broker: str = "sqs-standard"


MUTANTS = {
    "a failed task is deleted": Mutant(
        "app.py",
        "task_acks_on_failure=False",
        "task_acks_on_failure=True",
        "test_faults.py::test_last_failure_that_the_worker_cannot_dead_letter_is_left_to_sqs",
    ),
    "a failure that will be tried again is final": Mutant(
        "delivery.py",
        'raise ComesBack(f"{error!r}, comes back", error) from error',
        "raise",
        "test_failures.py::test_result_says_retry_until_the_last_delivery_has_failed",
    ),
    "permanent failures are tried again": Mutant(
        "delivery.py",
        "hopeless = permanent or",
        "hopeless = not permanent or",
        "test_failures.py::test_failure_declared_permanent_is_dead_lettered_at_once_with_its_reason",
    ),
    "a last failure leaves no reason": Mutant(
        "delivery.py",
        "hopeless = permanent or (failed and self.is_last)",
        "hopeless = permanent",
        "test_failures.py::test_result_says_retry_until_the_last_delivery_has_failed",
    ),
    "a late start runs twice": Mutant(
        "delivery.py",
        'time.monotonic() > delivery["start_before"]',
        "False",
        "test_sending.py::test_message_that_waited_too_long_in_its_worker_is_given_back_unstarted",
    ),
    "unreadable messages are deleted": Mutant(
        "delivery.py",
        "        message.reject()\n",
        "        message.ack()\n",
        "test_faults.py::test_messages_that_cannot_be_read_end_in_the_dead_letter_queue_and_the_worker_goes_on",
    ),
    "unknown tasks fail at their first delivery": Mutant(
        "delivery.py",
        "backend.mark_as_failure if is_last else",
        "backend.mark_as_failure if True else",
        "test_failures.py::test_task_that_the_worker_does_not_know_waits_for_one_that_does_and_is_not_logged_in_full",
    ),
    "a killed task's result is final": Mutant(
        "delivery.py",
        "if soft or self.is_last or state.should_terminate:",
        "if True:",
        "test_failures.py::test_task_killed_at_its_hard_limit_comes_back_and_is_dead_lettered",
    ),
    "a poll is waited for without end": Mutant(
        "polling.py",
        "curl.setopt(pycurl.TIMEOUT, int(self.timeout))",
        "pass",
        "test_faults.py::test_worker_survives_every_kind_of_failed_poll_and_goes_on",
    ),
    "a failed poll ends the worker": Mutant(
        "polling.py",
        'return Failure("no answer", response.reason)',
        "raise OSError(response.reason)",
        "test_faults.py::test_worker_survives_every_kind_of_failed_poll_and_goes_on",
    ),
    "a failed delete is not tried again": Mutant(
        "transport.py",
        "        if kept:\n",
        "        if False:\n",
        "test_faults.py::test_worker_survives_a_failing_delete_and_deletes_later[expired]",
    ),
    "the pause goes past the dead-letter queue": Mutant(
        "transport.py",
        "return 0  # SQS moves",
        "pass  # SQS moves",
        "test_visibility.py::test_pause_is_never_longer_than_the_visibility_timeout_and_none_before_the_dead_letter_queue",
    ),
    "a stopping worker keeps what it holds": Mutant(
        "transport.py",
        "pause = 0 if stopping else",
        "pause =",
        "test_visibility.py::test_rejected_message_comes_back_after_a_pause_but_at_once_when_the_worker_stops",
    ),
    "the heartbeat never ends": Mutant(
        "transport.py",
        'math.floor(message.delivery_info["received_at"] + rules["heartbeat_limit_seconds"] - now)',
        "43_200",
        "test_visibility.py::test_heartbeat_never_goes_past_its_limit",
    ),
    "half an answer counts as a whole one": Mutant(
        "batching.py",
        "if key not in taken and key not in refused}",
        "if key in reasons and key not in refused}",
        "test_batching.py::test_what_an_answer_does_not_tell_of_is_sent_again",
    ),
    "too large a message is sent": Mutant(
        "batching.py",
        "> max_message_bytes:",
        "> 10 * max_message_bytes:",
        "test_batching.py::test_message_too_large_is_refused_before_anything_is_sent",
    ),
    "a countdown outlasts the visibility timeout": Mutant(
        "app.py",
        "if countdown > longest and",
        "if False and",
        "test_sending.py::test_a_countdown_that_the_visibility_timeout_does_not_cover_is_refused",
    ),
    "a worker that does not poll seems alive": Mutant(
        "liveness.py",
        "return bool(time.monotonic() - last <",
        "return bool(0 <",
        "test_liveness.py::test_alive_while_the_broker_answers",
    ),
    "an old sign of life counts": Mutant(
        "health.py",
        "if age > STALE_AFTER_SECONDS:",
        "if False:",
        "test_liveness.py::test_check_looks_at_the_age_of_the_file",
    ),
    "a task sent by a task leaves its group": Mutant(
        "app.py",
        'options.pop("MessageGroupId", None) or _group_of_current_task()',
        'options.pop("MessageGroupId", None)',
        "test_sending.py::test_a_task_sent_by_a_task_stays_in_its_group",
        "sqs-fifo",
    ),
    "a second attempt counts as a repetition": Mutant(
        "ordering.py",
        'f"{task_id}:{attempt}"',
        "task_id",
        "test_ordering.py::test_an_attempt_has_one_deduplication_id_and_the_next_another",
        "sqs-fifo",
    ),
    "a FIFO batch overtakes itself": Mutant(
        "batching.py",
        'lane = message[1]["MessageGroupId"] if self.ordered else number',
        "lane = number",
        "test_batching.py::test_messages_of_a_fifo_group_wait_for_each_other",
        "sqs-fifo",
    ),
    "a FIFO group runs side by side": Mutant(
        "polling.py",
        '1 if queue.endswith(".fifo") else self._get_message_estimate()',
        "self._get_message_estimate()",
        "test_groups.py::test_groups_run_side_by_side_and_each_in_order_also_with_failures[1]",
        "sqs-fifo",
    ),
    "RabbitMQ brings what failed back at once": Mutant(
        "transport.py",
        "        if pause:\n",
        "        if False:\n",
        "test_failures.py::test_pause_is_the_tasks_own_where_it_has_one",
        "rabbitmq",
    ),
    "RabbitMQ counts deliveries from the last failure on": Mutant(
        "transport.py",
        'headers = {**message.headers, EARLIER_DELIVERIES: info["receive_count"]}\n',
        "headers = dict(message.headers)\n",
        "test_faults.py::test_failures_and_deaths_are_counted_together",
        "rabbitmq",
    ),
    "RabbitMQ delivers once too often to workers that die": Mutant(
        "broker.py",
        '"x-delivery-limit": queue.max_receive_count - 1',
        '"x-delivery-limit": queue.max_receive_count',
        "test_faults.py::test_message_that_kills_its_worker_each_time_is_dead_lettered_after_the_same_count",
        "rabbitmq",
    ),
    "RabbitMQ drops what no queue would have": Mutant(
        "transport.py",
        "mandatory=True",
        "mandatory=False",
        "test_faults.py::test_sender_is_told_if_the_queue_is_gone",
        "rabbitmq",
    ),
    "RabbitMQ's certificate may be anybody's": Mutant(
        "broker.py",
        ', "server_hostname": parts.hostname}',
        "}",
        "test_topology.py::test_certificate_and_host_name_are_verified[other.example-True-Hostname mismatch]",
        "rabbitmq",
    ),
    "a task runs on when its message is another's": Mutant(
        "broker.py",
        '"worker_cancel_long_running_tasks_on_connection_loss": True',
        '"worker_cancel_long_running_tasks_on_connection_loss": False',
        "test_faults.py::test_task_whose_connection_is_lost_is_cancelled_here_and_done_again",
        "rabbitmq",
    ),
    "RabbitMQ delivers early": Mutant(
        "ordering.py",
        "math.ceil(delay_seconds)",
        "math.floor(delay_seconds)",
        "test_topology.py::test_delayed_task_is_never_early[2.5]",
        "rabbitmq",
    ),
    "what expired is dead-lettered": Mutant(
        "transport.py",
        '        kept.pop("expiration", None)\n',
        "",
        "test_faults.py::test_task_that_expired_is_dropped_by_its_worker",
        "rabbitmq",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(bake, tmp_path, name):
    mutant = MUTANTS[name]
    answers = {"broker": mutant.broker, "results": "dynamodb"}
    folder = shutil.copytree(bake(**answers), tmp_path / label(answers))
    path = folder / "src" / "acme_jobs" / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.right) == 1
    path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{mutant.test}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    # 1: tests failed; anything else is no test, or one that could not run.
    assert tests.returncode == 1, tests.stdout[-3000:] + tests.stderr[-2000:]
    assert " error" not in tests.stdout.splitlines()[-1]
    show("mutants caught")
