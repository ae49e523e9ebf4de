"""What docs/messages.md says of messages from other languages: its examples are sent as they stand, and run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.parse

import pytest

from library.invoices import NAME
from library.support import BROKER, HAS_RESULTS, IS_FIFO, PROJECT, broker, eventually, need, running_service

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not HAS_RESULTS, reason="results tell what ran"),
]

PAGE = (PROJECT / "docs" / "messages.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write the page's files into a folder."""
    folder = tmp_path_factory.mktemp("page")
    for code in (*blocks("js"), *blocks("python")):
        (folder / re.match(r"(?://|#) (\S+)", code)[1]).write_text(code, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def invoicing(tmp_path_factory):
    """The service with a worker that knows the page's task."""
    limits = {"soft_limit_seconds": 3, "hard_limit_seconds": 5, "max_receive_count": 2}
    with running_service(tmp_path_factory.mktemp("logs"), **limits) as service:
        service.include = ("library.probes", "library.invoices")
        service.start_worker()
        assert service.ready(), service.log()  # On RabbitMQ, workers declare the queues.
        yield service


@pytest.fixture(scope="module")
def installed(files):
    """Install what the page says for Node; skip where there is none, except in CI, where .ci/run installs it."""
    for program in ("node", "npm"):
        need(program)
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("npm ")]
    subprocess.run([*line.split(), "--no-package-lock", "--no-audit", "--no-fund"], cwd=files, check=True)


def run(service, command, folder):
    """Run a command in a folder with the variables of the service, and return its lines."""
    region = service.environment["AWS_DEFAULT_REGION"]
    env = {**service.client_environment(), "AWS_REGION": region, **broker.page_variables(service)}
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.split()


def result_of(service, task_id):
    with service.reached():
        return service.app.AsyncResult(task_id).get(timeout=40)


def test_node_when_it_sends_as_the_page_says_then_a_worker_runs_it(invoicing, files, installed):
    began = time.time()
    at_once, delayed = run(invoicing, ["node", "main.mjs"], files)
    order, group, _ = result_of(invoicing, at_once)
    assert (order, group) == ("order-7", "customer-7")
    order, group, ran_at = result_of(invoicing, delayed)
    assert (order, group) == ("order-8", "customer-8" if IS_FIFO else None)
    assert ran_at - began >= 2
    assert eventually(lambda: invoicing.waiting() + invoicing.dead() == 0), invoicing.log()


REFUSED = """
import { open, send } from "./send.mjs";
const connection = await open();
for (const [queue, seconds] of [["no-such-queue", 0], [process.argv.at(-1), 2 ** 27]]) {
  await send(connection, queue, "a.b", [], { seconds }).catch((error) => console.log(error.message.split(" ")[3]));
}
await connection.close();
"""


@pytest.mark.skipif(BROKER != "rabbitmq", reason="SQS itself refuses such requests")
def test_node_when_no_queue_takes_the_message_then_raises(invoicing, files, installed):
    (files / "refused.mjs").write_text(REFUSED, encoding="utf-8")
    assert run(invoicing, ["node", "refused.mjs", invoicing.queue.name], files) == ["sent:", "sent:"]


def test_lambda_when_it_is_called_twice_then_a_worker_runs_its_task(invoicing, files):
    event = {"Records": [{"s3": {"object": {"key": "a+b/%C3%BC.pdf", "sequencer": "0055AED6DCD90281E5"}}}]}
    call = f"import handler; print(*(handler.handler({event!r}, None) + handler.handler({event!r}, None)))"
    first, second = run(invoicing, [sys.executable, "-c", call], files)
    assert first == second
    assert result_of(invoicing, first)[0] == urllib.parse.unquote_plus("a+b/%C3%BC.pdf")


def test_shortest_message_when_sent_then_a_worker_runs_it(invoicing):
    (shortest,) = map(json.loads, blocks("json"))
    assert shortest["headers"]["task"] == NAME
    broker.put(invoicing, shortest)
    assert result_of(invoicing, shortest["headers"]["id"])[0] == "order-7"


BAD = {
    "released": [{"headers": {"id": "1"}}, {"headers": {"task": "no.such", "id": "1"}}, {"body": "{"}],
    "dead-lettered": [
        {"headers": {"task": NAME}},
        {"headers": {"task": NAME, "id": "1", "retries": "x"}},
        {"headers": {"task": NAME, "id": "1", "eta": "2099-01-01T00:00:00Z"}},
        {"headers": {"task": NAME, "id": "1", "timelimit": 5}},
        {"body": [[], {}]},
        {"body": [[], {}, {}]},
        {"content-type": "application/x-python-serialize"},
    ],
}


def test_bad_message_when_received_then_ends_as_the_page_says(invoicing):
    good = {"headers": {"task": NAME, "id": "1"}, "body": [["order-9"], {}, {}]}
    sent = 0
    for kind, messages in BAD.items():
        for change in messages:
            broker.put(invoicing, {**good, **change})
            sent += 1
            assert eventually(lambda sent=sent: invoicing.dead() == sent), (change, invoicing.log())
            lines = [json.loads(line) for line in invoicing.log().splitlines() if line.startswith("{")]
            outcomes = [line["outcome"] for line in lines if line.get("outcome") in ("retrying", "dead_lettered")]
            attempts = ["retrying", "dead_lettered"] if kind == "released" else ["dead_lettered"]
            assert outcomes[-len(attempts) :] == attempts, change
            assert len(outcomes) == sum(1 + (index < 3) for index in range(sent)), change
