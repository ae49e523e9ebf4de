"""The library's tests of delivery can fail: each protection, taken out alone, is missed by one of them.

What each costs: a lost or repeated task, a worker that ends or stalls, an order that does not hold.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest
from conftest import PROJECT, library_tests


@dataclass(frozen=True)
class Mutant:
    """One protection taken out, and the test that is to miss it."""

    file: str
    right: str
    wrong: str
    test: str
    broker: str = "sqs-standard"
    results: str = "dynamodb"


MUTANTS = {
    "a failed task is deleted": Mutant(
        "delivery.py",
        "Verdict(Action.DEAD_LETTER, outcome, 0",
        "Verdict(Action.DELETE, outcome, 0",
        "test_failures.py::test_result_says_retry_until_the_last_delivery_has_failed",
    ),
    "a failure that will be tried again is final": Mutant(
        "delivery.py",
        "if not attempt.has_returned and not attempt.is_last",
        "if False and not attempt.is_last",
        "test_failures.py::test_result_says_retry_until_the_last_delivery_has_failed",
    ),
    "permanent failures are tried again": Mutant(
        "delivery.py",
        "and not is_permanent(task, error)",
        "",
        "test_failures.py::test_failure_declared_permanent_is_dead_lettered_at_once_with_its_reason",
    ),
    "a last failure leaves no reason": Mutant(
        "brokers/sqs/transport.py",
        'info.get("reason") or {}',
        "{}",
        "test_failures.py::test_result_says_retry_until_the_last_delivery_has_failed",
    ),
    "a late start runs twice": Mutant(
        "delivery.py",
        'if attempt.began <= request["delivery_info"]["start_before"]:',
        "if True:",
        "test_delivery.py::test_message_when_it_waited_too_long_in_its_worker_then_is_released_unstarted",
    ),
    "unreadable messages are deleted": Mutant(
        "consumer.py",
        'verdict = Verdict(Action.RELEASE, "retrying", backoff_seconds(queue, attempt))',
        'verdict = Verdict(Action.DELETE, "retrying", backoff_seconds(queue, attempt))',
        "sqs/test_faults.py::test_messages_that_cannot_be_read_end_in_the_dead_letter_queue_and_the_worker_goes_on",
    ),
    "headers are believed": Mutant(
        "consumer.py",
        'headers.check(chosen, options["body"] if options.get("decoded") else message.payload)',
        "pass",
        "sqs/test_faults.py::test_messages_that_cannot_be_read_end_in_the_dead_letter_queue_and_the_worker_goes_on",
    ),
    "what cannot be dead-lettered at once runs again": Mutant(
        "brokers/sqs/transport.py",
        "elif self.hub and self.consuming and time.monotonic() + backoff <",
        "elif False and time.monotonic() + backoff <",
        "sqs/test_faults.py::test_failure_when_dead_letters_are_refused_then_runs_once_and_keeps_no_slot[503]",
    ),
    "RabbitMQ is asked twice and no more": Mutant(
        "brokers/rabbitmq/republisher.py",
        "if not sent and time.monotonic() < outgoing.retry_until and",
        "if False and",
        "rabbitmq/test_republisher.py::test_message_when_the_broker_returns_then_is_sent_once",
        "rabbitmq",
    ),
    "unknown tasks fail at their first delivery": Mutant(
        "consumer.py",
        '"is_last": info["receive_count"] >= queue.max_receive_count',
        '"is_last": True',
        "test_failures.py::test_task_that_the_worker_does_not_know_waits_for_one_that_does_and_is_not_logged_in_full",
    ),
    "a result that cannot be stored repeats the task": Mutant(
        "delivery.py",
        "attempt.has_returned = True",
        "pass",
        "test_outcomes.py::test_task_when_its_result_cannot_be_stored_then_fails_once_with_the_reason[object]",
    ),
    "a result is not waited for": Mutant(
        "storing.py",
        "if not attempt.may_wait(backoff):",
        "if True:",
        "test_outages.py::test_tasks_when_the_result_backend_is_out_then_run_once_and_have_results_afterwards[500]",
    ),
    "an errback that ends the process repeats the task": Mutant(
        "storing.py",
        "        _settle(request.id)\n",
        "",
        "test_outcomes.py::test_task_when_its_errback_ends_the_process_then_is_not_run_again[die_in_errback]",
    ),
    "what waits for a chord does not wait for the broker": Mutant(
        "delivery.py",
        'if self.name == "celery.chord_unlock":',
        "if False:",
        "sqs/test_faults.py::test_chord_when_the_broker_is_out_at_its_end_then_its_body_runs_once",
        results="s3",
    ),
    "an outer chord is not told that an inner one failed": Mutant(
        "storing.py",
        'if outer := options.get("chord"):',
        "if False:",
        "test_outcomes.py::test_chord_when_a_chord_in_it_fails_then_fails_once",
    ),
    "Retry raised by hand is taken for a retry that was sent": Mutant(
        "delivery.py",
        "if self.state == states.RETRY and attempt.retry_sent:",
        "if self.state == states.RETRY:",
        "test_outcomes.py::test_task_when_it_ends_with_anything_then_is_failed_and_dead_lettered_once[Retry]",
    ),
    "an outcome is not handed over": Mutant(
        "storing.py",
        "or not attempt.hands_over:",
        "or True:",
        "test_outages.py::test_worker_when_stopped_during_an_outage_then_hands_outcomes_over[500]",
    ),
    "a process that stores is killed at its limit": Mutant(
        "pool.py",
        "if request is not None and (phase := phase_of(request.mark)) >= Phase.ENDED:",
        "if False:",
        "test_outages.py::test_tasks_when_the_result_backend_is_out_then_run_once_and_have_results_afterwards[500]",
    ),
    "a process that dies when all is done repeats its task": Mutant(
        "consumer.py",
        "elif phase > Phase.ENDED:",
        "elif False:",
        "test_outcomes.py::test_task_when_its_process_dies_after_it_succeeded_then_is_not_run_again",
    ),
    "the next step cannot be sent, and repeats the one before": Mutant(
        "delivery.py",
        "attempt.has_returned = True",
        "pass",
        "test_outcomes.py::test_chain_when_its_next_step_is_too_large_then_fails_once_after_one_run",
    ),
    "tasks of other bases are final at once": Mutant(
        "delivery.py",
        "Info=Outcome",
        "",
        "test_outcomes.py::test_task_of_any_base_when_it_fails_once_then_only_its_link_runs[fail_once_plain]",
    ),
    "Reject is tried again": Mutant(
        "delivery.py",
        "    errors.TaskRejectedError,\n)",
        ")",
        "test_outcomes.py::test_task_when_it_ends_with_anything_then_is_failed_and_dead_lettered_once[Reject]",
    ),
    "a refused retry is tried again": Mutant(
        "delivery.py",
        "    errors.RetryRefusedError,\n",
        "",
        "test_outcomes.py::test_task_when_its_retry_is_refused_then_fails_once_with_the_reason[retry_in]",
    ),
    "an ETA beyond the visibility timeout is held": Mutant(
        "consumer.py",
        "if wait > longest:",
        "if False:",
        "test_outcomes.py::test_message_with_an_eta_too_far_ahead_when_received_then_is_dead_lettered_once",
    ),
    "a limit that a sender chose is not kept": Mutant(
        "consumer.py",
        "hard = min(chosen[0] or task.time_limit or queue.hard_limit_seconds, queue.hard_limit_seconds)",
        "hard = queue.hard_limit_seconds",
        "test_outcomes.py::test_hard_limit_of_a_task_alone_when_shorter_than_the_soft_one_of_its_queue_then_holds",
    ),
    "a canvas is checked step by step": Mutant(
        "sending.py",
        "self._check_following(options, group)\n        key =",
        "key =",
        "test_outcomes.py::test_canvas_when_a_part_of_it_cannot_be_honoured_then_is_refused_whole[chain]",
    ),
    "errors are stored whatever their size": Mutant(
        "failures.py",
        "if len(dumps(ensure_serializable(list(error.args), dumps))) <= MAX_ERROR_BYTES:",
        "if True:",
        "test_delivery.py::test_error_when_it_is_huge_or_broken_then_is_stored_cut",
    ),
    "a freed slot waits for the next event": Mutant(
        "brokers/sqs/polling.py",
        "self.hub.call_later(0, call, *args)",
        "self.hub.call_soon(call, *args)",
        "sqs/test_polling.py::test_call_when_made_soon_by_the_event_loop_then_is_not_left_to_its_next_event",
    ),
    "a paused queue is polled": Mutant(
        "brokers/sqs/polling.py",
        "if self._paused is None or queue in self._paused:",
        "if self._paused is None:",
        "sqs/test_polling.py::test_queue_when_paused_then_is_not_polled_and_holds_up_no_other",
    ),
    "what a poll returns after a pause is run": Mutant(
        "brokers/sqs/polling.py",
        "or queue in (self._paused or ())",
        "",
        "sqs/test_polling.py::test_message_when_its_queue_was_paused_during_the_poll_then_is_released",
    ),
    "a worker that starts later takes messages of a paused queue": Mutant(
        "brokers/rabbitmq/pauses.py",
        "app.amqp.queues.deselect(each)",
        "pass",
        "rabbitmq/test_pausing.py::test_queue_when_paused_then_no_worker_takes_its_messages",
        "rabbitmq",
    ),
    "a worker that starts later runs what is revoked": Mutant(
        "brokers/sqs/listener.py",
        "state.revoked.update(found.revoked - self._revoked)",
        "pass",
        "sqs/test_remote_control.py::test_queue_when_paused_then_no_worker_takes_its_messages",
    ),
    "an attempt that starts as its worker is stopped is forgotten": Mutant(
        "pool.py",
        "            self._read_accepted()\n",
        "            pass\n",
        "test_pool.py::test_attempt_when_its_worker_is_stopped_before_it_reads_the_start_then_is_not_forgotten[runs]",
    ),
    "timers pile up": Mutant(
        "brokers/sqs/calls.py",
        "    def _set_timeout(self, msecs: int) -> None:\n",
        "    def _another(self, msecs: int) -> None:\n",
        "test_main_process.py::test_timers_when_a_worker_polls_and_works_then_do_not_pile_up",
    ),
    "a process that starts slowly is killed": Mutant(
        "app.py",
        "worker_proc_alive_timeout=60",
        "worker_proc_alive_timeout=4",
        "test_main_process.py::test_task_process_when_it_starts_slowly_then_is_not_killed_for_it",
    ),
    "a main process waits for answers that drip in": Mutant(
        "brokers/sqs/calls.py",
        "curl.setopt(pycurl.TIMEOUT_MS, int(seconds * 1000))",
        "pass",
        "sqs/test_faults.py::test_worker_when_an_answer_drips_in_then_polls_on_and_deletes_later",
    ),
    "what is no answer of SQS is one": Mutant(
        "brokers/sqs/calls.py",
        "check(operation, parsed)",
        "pass",
        "sqs/test_faults.py::test_worker_survives_every_kind_of_failed_poll_and_goes_on",
    ),
    "expired credentials end the worker": Mutant(
        "brokers/sqs/calls.py",
        "        except Exception as error:  # noqa: BLE001 - credentials can be missing for many reasons\n",
        "        except KeyError as error:\n",
        "sqs/test_faults.py::test_worker_survives_credentials_that_have_expired_and_keeps_no_messages_in_files",
    ),
    "an option that cannot be honoured is ignored": Mutant(
        "checks.py",
        "if value is not None and bool(value) is refused:",
        "if False:",
        "test_refusals.py::test_task_when_an_option_cannot_be_honoured_then_is_refused_when_registered",
    ),
    "a DynamoDB chord counts twice what is stored twice": Mutant(
        "results/dynamodb.py",
        "str(request.id).encode()",
        "str(id(options)).encode()",
        "dynamodb/test_results.py::test_chord_when_a_task_is_counted_twice_then_counts_once",
    ),
    "a poll is waited for without end": Mutant(
        "brokers/sqs/calls.py",
        "    curl.setopt(pycurl.TIMEOUT_MS, int(seconds * 1000))\n",
        "",
        "sqs/test_faults.py::test_worker_survives_every_kind_of_failed_poll_and_goes_on",
    ),
    "a failed poll is the last": Mutant(
        "brokers/sqs/polling.py",
        "self.hub.call_later(backoff, self._schedule_queue, queue)",
        "pass",
        "sqs/test_faults.py::test_worker_survives_every_kind_of_failed_poll_and_goes_on",
    ),
    "a failed delete is not tried again": Mutant(
        "brokers/sqs/transport.py",
        "if kept and self.hub and",
        "if False and self.hub and",
        "sqs/test_faults.py::test_worker_survives_a_failing_delete_and_deletes_later[expired]",
    ),
    "the backoff delays the dead-letter queue": Mutant(
        "backoff.py",
        "    if attempt >= queue.max_receive_count:\n        return 0\n",
        "",
        "test_backoff.py::test_backoff_after_the_last_attempt_then_is_none",
    ),
    "a stopping worker keeps what it holds": Mutant(
        "brokers/sqs/transport.py",
        "seconds = 0 if stopping else",
        "seconds =",
        "sqs/test_visibility.py::test_released_message_is_redelivered_after_its_backoff_but_at_once_when_the_worker_stops",
    ),
    "the heartbeat never ends": Mutant(
        "brokers/sqs/transport.py",
        'math.floor(message.delivery_info["received_at"] + rules["heartbeat_limit_seconds"] - now)',
        "43_200",
        "sqs/test_visibility.py::test_heartbeat_never_goes_past_its_limit",
    ),
    "half an answer counts as a whole one": Mutant(
        "brokers/sqs/batching.py",
        "if key not in accepted and key not in refused}",
        "if key in reasons and key not in refused}",
        "sqs/test_batching.py::test_what_an_answer_does_not_tell_of_is_sent_again",
    ),
    "too large a message is sent": Mutant(
        "brokers/sqs/batching.py",
        "> max_message_bytes:",
        "> 10 * max_message_bytes:",
        "sqs/test_batching.py::test_message_too_large_is_refused_before_anything_is_sent",
    ),
    "a countdown outlasts the visibility timeout": Mutant(
        "sending.py",
        "can_wait = countdown <= longest or",
        "can_wait = True or",
        "test_sending.py::test_a_countdown_that_the_visibility_timeout_does_not_cover_is_refused",
    ),
    "a worker that does not poll seems alive": Mutant(
        "liveness.py",
        "return bool(now - last <",
        "return bool(0 <",
        "test_liveness.py::test_alive_while_the_broker_answers",
    ),
    "a scheduled task that the broker did not take is forgotten": Mutant(
        "beat.py",
        "            firings.failure = error\n            return\n",
        "            firings.failure = error\n",
        "test_beat.py::test_task_that_cannot_be_sent_is_tried_again_until_it_can",
    ),
    "a scheduled task is lost in silence": Mutant(
        "beat.py",
        "if due and lost:",
        "if False:",
        "test_beat.py::test_task_that_cannot_be_sent_until_the_next_is_due_is_logged",
    ),
    "an old sign of life counts": Mutant(
        "health.py",
        "if age > STALE_AFTER_SECONDS:",
        "if False:",
        "test_liveness.py::test_check_looks_at_the_age_of_the_file",
    ),
    "a task sent by a task leaves its group": Mutant(
        "sending.py",
        '_stated(task, "message_group", args, kwargs) or inherited',
        '_stated(task, "message_group", args, kwargs)',
        "test_sending.py::test_a_task_sent_by_a_task_stays_in_its_group",
        "sqs-fifo",
    ),
    "a second attempt counts as a repetition": Mutant(
        "brokers/sqs/properties.py",
        ":{message.attempt}",
        "",
        "sqs/test_properties.py::test_attempt_when_repeated_then_keeps_its_id_and_a_retry_has_another",
    ),
    "a retry leaves its group": Mutant(
        "sending.py",
        "            chosen = inherited\n",
        "            pass\n",
        "test_groups.py::test_retry_when_its_message_had_a_group_then_stays_in_it",
    ),
    "a less urgent queue is polled although an urgent one has messages": Mutant(
        "brokers/sqs/polling.py",
        "now < self._empty_until.get(other, 0) for other in more_urgent",
        "True for other in more_urgent",
        "sqs/test_polling.py::test_polls_when_both_queues_are_full_then_are_of_the_urgent_one",
    ),
    "a request that waits too long is redelivered": Mutant(
        "consumer.py",
        "if start_by < time.monotonic():",
        "if False:",
        "test_waiting_requests.py::test_request_when_it_would_start_too_late_then_goes_first",
    ),
    "a FIFO batch overtakes itself": Mutant(
        "brokers/sqs/batching.py",
        'lane = message[1]["MessageGroupId"] if self.ordered else number',
        "lane = number",
        "sqs/test_batching.py::test_messages_of_a_fifo_group_wait_for_each_other",
        "sqs-fifo",
    ),
    "a FIFO group runs side by side": Mutant(
        "brokers/sqs/polling.py",
        '1 if queue.endswith(".fifo") else self._room()',
        "self._room()",
        "fifo/test_order_in_groups.py::test_groups_run_side_by_side_and_each_in_order_also_with_failures[1]",
        "sqs-fifo",
    ),
    "RabbitMQ brings what failed back at once": Mutant(
        "brokers/rabbitmq/transport.py",
        'elif seconds := int(info.get("release_after_seconds") or 0):',
        "elif seconds := 0:",
        "test_failures.py::test_pause_is_the_tasks_own_where_it_has_one",
        "rabbitmq",
    ),
    "RabbitMQ 4.3's own count is overlooked": Mutant(
        "brokers/rabbitmq/transport.py",
        '("x-delivery-count", "x-acquired-count")]',
        '("x-delivery-count",)]',
        "rabbitmq/test_faults.py::test_message_when_taken_back_too_often_then_is_dead_lettered",
        "rabbitmq",
    ),
    "RabbitMQ counts deliveries from the last failure on": Mutant(
        "brokers/rabbitmq/transport.py",
        'headers = {**self.headers, EARLIER_DELIVERIES: info["receive_count"]}\n',
        "headers = dict(self.headers)\n",
        "rabbitmq/test_faults.py::test_failures_and_deaths_are_counted_together",
        "rabbitmq",
    ),
    "RabbitMQ delivers once too often to workers that die": Mutant(
        "brokers/rabbitmq/__init__.py",
        '"x-delivery-limit": queue.max_receive_count - 1',
        '"x-delivery-limit": queue.max_receive_count',
        "rabbitmq/test_faults.py::test_message_that_kills_its_worker_each_time_is_dead_lettered_after_the_same_count",
        "rabbitmq",
    ),
    "RabbitMQ drops what no queue would have": Mutant(
        "brokers/rabbitmq/transport.py",
        "mandatory=True",
        "mandatory=False",
        "rabbitmq/test_faults.py::test_sender_is_told_if_the_queue_is_gone",
        "rabbitmq",
    ),
    "RabbitMQ's certificate may be anybody's": Mutant(
        "brokers/rabbitmq/__init__.py",
        ', "server_hostname": parts.hostname}',
        "}",
        "rabbitmq/test_topology.py::test_certificate_and_host_name_are_verified[other.example-True-Hostname mismatch]",
        "rabbitmq",
    ),
    "a task runs on when its message is another's": Mutant(
        "brokers/rabbitmq/__init__.py",
        '"worker_cancel_long_running_tasks_on_connection_loss": True',
        '"worker_cancel_long_running_tasks_on_connection_loss": False',
        "rabbitmq/test_faults.py::test_task_whose_connection_is_lost_is_cancelled_here_and_done_again",
        "rabbitmq",
    ),
    "RabbitMQ delivers early": Mutant(
        "brokers/rabbitmq/properties.py",
        "math.ceil(message.delay_seconds)",
        "math.floor(message.delay_seconds)",
        "rabbitmq/test_topology.py::test_delayed_task_is_never_early[2.5]",
        "rabbitmq",
    ),
    "what expired is dead-lettered": Mutant(
        "brokers/rabbitmq/transport.py",
        '        kept.pop("expiration", None)\n',
        "",
        "rabbitmq/test_faults.py::test_task_that_expired_is_dropped_by_its_worker",
        "rabbitmq",
    ),
}


def test_protection_when_it_is_to_be_taken_out_then_is_there_once():
    library = PROJECT / "chassis" / "celery_aws"
    found = {
        name: (library / each.file).read_text(encoding="utf-8").count(each.right) for name, each in MUTANTS.items()
    }
    assert {name: count for name, count in found.items() if count != 1} == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(tmp_path, name):
    mutant = MUTANTS[name]
    chassis = shutil.copytree(PROJECT / "chassis", tmp_path / "chassis")
    path = chassis / "celery_aws" / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
    # One queue, so that no other's worker has to start.
    answers = {"broker": mutant.broker, "results": mutant.results, "queues": "only"}
    tests = library_tests(answers, [mutant.test], "-x", chassis=chassis)
    # 1: tests failed; anything else is no test, or one that could not run.
    assert tests.returncode == 1, tests.stdout[-3000:] + tests.stderr[-2000:]
    assert " error" not in tests.stdout.splitlines()[-1]
