"""`doctor` on RabbitMQ: all is well; and each thing that is wrong is found, by its code."""

from __future__ import annotations

import json
import os
import uuid
from unittest import mock
from urllib.parse import quote

import pytest

from celery_aws.dev.brokers import rabbitmq as broker
from library.commands import Commands
from library.rabbitmq import tls
from library.rabbitmq.messages import bodies, celery_body, channel, put
from library.support import CONTRACT, eventually, module, renamed

pytestmark = pytest.mark.end_to_end

doctor = module("doctor.rabbitmq")
places = module("environment.rabbitmq")
topology = module("brokers.rabbitmq.topology")


@pytest.fixture(scope="module")
def quiet(quiet):
    """A service without workers, whose queues may be made otherwise."""
    with channel(quiet):
        yield quiet


@pytest.fixture
def changed(quiet):
    """Delete a queue of the first queue, and declare it with other arguments until the test ends."""
    name = quiet.queue.name

    def change(dead=False, kind="quorum", **arguments):
        of = module("brokers.rabbitmq").dead_letter_queue if dead else module("brokers.rabbitmq").work_queue
        wanted = of(name, quiet.contract)
        there = {**wanted.queue_arguments, "x-queue-type": kind}
        there.update({f"x-{key.replace('_', '-')}": value for key, value in arguments.items()})
        there = {key: value for key, value in there.items() if value is not None}
        with channel(quiet) as opened:
            opened.queue_delete(wanted.name)
            opened.queue_declare(wanted.name, durable=True, auto_delete=False, arguments=there)
            for key in (wanted.routing_key, f"#.{wanted.routing_key}")[: 1 if dead else 2]:
                opened.queue_bind(wanted.name, wanted.exchange.name, key)

    yield change
    with channel(quiet) as opened:
        for each in (name, f"{name}-dlq"):
            opened.queue_delete(each)


@pytest.fixture
def look_quietly(quiet, tmp_path):
    """Make all checks where no worker is; return what is not well but for that, by code."""

    def found():
        with mock.patch.dict(os.environ, {**quiet.environment, "LIVENESS_DIRECTORY": str(tmp_path)}):
            place = places.Environment(quiet.contract, "development")
            every = [finding for finding in doctor.findings(place, "operator") if not finding.is_well]
        return {finding.code: finding for finding in every if finding.code != "D501"}

    return found


@pytest.mark.parametrize("role", list(doctor.ROLES))
def test_all_is_well(look, working, role):
    commands = Commands(working)
    said = commands.run("doctor", "--role", role, LIVENESS_DIRECTORY=str(working.logs))
    assert "0 failed, 0 could not run" in said
    assert "Recommended" not in commands.errors
    found = json.loads(commands.run("doctor", "--json", LIVENESS_DIRECTORY=str(working.logs)))
    expected = {code for code in doctor.CHECKS if CONTRACT["results"] != "none" or not code.startswith("D4")}
    assert {finding["code"] for finding in found} == expected
    everything = commands.run("doctor", "--all", LIVENESS_DIRECTORY=str(working.logs))
    assert all(len(line) <= 80 for line in everything.splitlines()), everything
    assert broker.PASSWORD not in everything


def test_looking_leaves_nothing_behind(look, working):
    for role in doctor.ROLES:
        look(role)
    for queue in working.contract.queues:
        assert (working.waiting(queue), working.dead(queue)) == (0, 0)


@pytest.mark.parametrize(
    ("code", "dead", "arguments"),
    [
        ("D201", False, {"kind": "classic", "overflow": "drop-head", "delivery_limit": None}),
        ("D202", True, {"kind": "classic", "delivery_limit": None}),
        ("D203", False, {"consumer_timeout": 61_000}),
        ("D204", False, {"message_ttl": 61_000}),
        ("D206", False, {"delivery_limit": 99}),
        ("D206", False, {"dead_letter_routing_key": "elsewhere"}),
        ("D206", False, {"dead_letter_strategy": None}),
        ("D207", False, {"overflow": "drop-head", "dead_letter_strategy": "at-most-once"}),
        ("D210", True, {"message_ttl": 61_000}),
        ("D211", True, {"delivery_limit": 20}),
    ],
)
def test_argument_that_differs_is_found(look_quietly, changed, code, dead, arguments):
    if arguments.get("kind") == "classic":  # Which take neither, or are refused.
        arguments = {**arguments, "dead_letter_strategy": None, "consumer_timeout": None}
    changed(dead, **arguments)
    found = look_quietly()
    assert code in found
    assert set(found) <= {code, "D203", "D206"}
    assert found[code].is_well is False
    assert "contract.json" in found[code].advice


def test_what_is_missing_is_found(look_quietly, quiet):
    name = quiet.queue.name
    try:
        with channel(quiet) as opened:
            opened.queue_unbind(f"{name}-dlq", "dead-letters", name)
            opened.exchange_unbind("tasks", "celery_delayed_delivery", f"#.{name}")
            found = look_quietly()
            assert set(found) == {"D205", "D212"}
            assert "celery_delayed_delivery" in found["D205"].says
            opened.queue_delete(f"{name}-dlq")
            assert set(look_quietly()) == {"D202", "D205"}
            opened.queue_delete(name)
            found = look_quietly()
            assert set(found) == {"D201", "D202"}
            assert "start a worker" in found["D201"].advice
    finally:
        with channel(quiet):
            pass  # Whoever connects declares it again.
    assert eventually(lambda: not look_quietly())


def test_orphans_when_a_queue_is_renamed_in_the_contract_are_found(quiet, tmp_path):
    old = quiet.queue.name
    contract = renamed(quiet.contract)

    def found():
        with mock.patch.dict(os.environ, {**quiet.environment, "LIVENESS_DIRECTORY": str(tmp_path)}):
            every = doctor.findings(places.Environment(contract, "development"), "operator")
            return {(each.code, each.subject): each for each in every if each.is_well is False and each.code != "D501"}

    put(quiet, [celery_body(1), celery_body(2)])
    try:
        # The management API counts some seconds late.
        assert eventually(lambda: "2 messages" in found()["D213", f"{old} dlq"].says), found()
        orphans = found()
    finally:
        bodies(quiet, dead=True)
    assert set(orphans) == {("D201", "renamed"), ("D202", "renamed"), ("D213", old), ("D213", f"{old} dlq")}
    assert orphans["D213", old].says == f"{old} is not in the contract; it is empty"
    assert "it holds 2 messages (2 waiting, 0 in flight)" in orphans["D213", f"{old} dlq"].says
    assert "put the queue back into contract.json" in orphans["D213", f"{old} dlq"].advice


EXPIRING = {"x-expires": 60_000}


@pytest.mark.parametrize(
    "kind",
    [{"auto_delete": True}, {"exclusive": True, "auto_delete": False}, {"arguments": EXPIRING}],
    ids=lambda kind: next(iter(kind)),
)
def test_queue_that_rabbitmq_deletes_by_itself_is_no_orphan(look_quietly, quiet, kind):
    with channel(quiet) as opened:
        opened.queue_declare("temporary", **{"auto_delete": False, **kind})
        try:
            assert look_quietly() == {}
        finally:
            opened.queue_delete("temporary")


def test_variables_that_lead_nowhere_are_found(look):
    assert set(look(BROKER_URL="")) == {"D101"}
    found = look(BROKER_URL="amqp://127.0.0.1:9/x")
    assert (set(found), found["D102"].is_well) == ({"D102"}, False)
    found = look(BROKER_PASSWORD="secret-word")
    assert set(found) == {"D102"}
    assert "does not accept" in found["D102"].says
    assert "secret-word" not in str(found)
    found = look(BROKER_MANAGEMENT_URL="http://127.0.0.1:9")
    assert {code: finding.is_well for code, finding in found.items()} == {"D105": None, "D201": None}


@pytest.mark.parametrize(("is_trusted", "says"), [(False, "self-signed certificate"), (True, "Hostname mismatch")])
def test_certificate_that_is_not_the_hosts_is_found(working, tmp_path, is_trusted, says):
    with tls.server(tmp_path, "other.example.com") as stranger:
        variables = {"BROKER_URL": f"amqps://localhost:{stranger.port}/x"}
        if is_trusted:
            variables["SSL_CERT_FILE"] = str(stranger.certificate)
        commands = Commands(working)
        said = commands.run("doctor", "--json", status=1, **variables)
        assert [finding["code"] for finding in json.loads(said) if not finding["is_well"]] == ["D102"]
        assert says in said
        for line in (("dlq", "list", working.queue.name), ("send", f"{working.queue.name}.measure", "x")):
            commands.run(*line, status=2, **variables)
            assert says in commands.errors


@pytest.mark.parametrize(
    ("version", "url", "is_well"),
    [
        ("4.2.0", "amqps://far.example.com", True),
        ("5.0.1", "amqps://far.example.com", True),
        ("4.1.9", "amqps://far.example.com", False),
        ("3.13.7", "amqps://far.example.com", False),
        ("", "amqps://far.example.com", False),
        ("3.10.8", "amqp://127.0.0.1", True),
    ],
)
def test_versions(version, url, is_well):
    place = mock.Mock(variables=mock.Mock(broker_url=url))
    assert doctor._version(place, version).is_well is is_well


@pytest.mark.parametrize("alarm", ["mem_alarm", "disk_free_alarm", "running"])
def test_node_that_suffers_is_found(look, alarm):
    ask = places.Environment.ask_with_date

    def suffering(self, path, *more):
        found, date = ask(self, path, *more)
        return [{**node, alarm: not node[alarm]} for node in found] if path == "nodes" else found, date

    with mock.patch.object(places.Environment, "ask_with_date", suffering):
        assert list(look()) == ["D106"]


@pytest.fixture
def user(working):
    """Make a user that may do only so much; return the variables that make a command use it."""
    management = working.environment["BROKER_MANAGEMENT_URL"]
    virtual_host = working.environment["BROKER_URL"].rpartition("/")[2]
    name = f"user-{uuid.uuid4().hex[:8]}"

    def made(tags="monitoring", **permissions):
        broker.ask(management, "PUT", f"users/{name}", {"password": "word", "tags": tags})
        every = {"configure": "^$", "write": "^$", "read": "^$", **permissions}
        broker.ask(management, "PUT", f"permissions/{quote(virtual_host, safe='')}/{name}", every)
        return {"BROKER_USERNAME": name, "BROKER_PASSWORD": "word"}

    yield made
    broker.ask(management, "DELETE", f"users/{name}")


def test_right_that_is_missing_is_found(look, user):
    found = look(**user(read=r"-dlq$", write="^tasks$"))
    assert list(found) == ["D301"]
    assert "may not write dead-letters" in found["D301"].says
    assert "read" not in found["D301"].says
    found = look("worker", **user(read=".*", write=".*"))
    assert "may not configure" in found["D301"].says
    found = look("operator", **user(write=".*"))
    assert "may not read" in found["D301"].says


def test_documented_rights_of_an_operator_are_enough(look, user):
    assert look(**user(read=r"-dlq$", write="^(tasks|dead-letters)$")) == {}


def test_worker_that_is_not_there_is_found(quiet, tmp_path):
    with mock.patch.dict(os.environ, {**quiet.environment, "LIVENESS_DIRECTORY": str(tmp_path)}):
        found = list(doctor.findings(places.Environment(quiet.contract, "development"), "operator"))
    codes = {each.code for each in found if not each.is_well}
    assert codes == ({"D501"} if any(worker.min for worker in quiet.contract.workers) else set())


def test_worker_elsewhere_is_seen_at_the_broker(look, tmp_path):
    assert look(LIVENESS_DIRECTORY=str(tmp_path)) == {}


@pytest.mark.skipif(CONTRACT["results"] == "none", reason="there is no result store")
def test_result_store_that_is_elsewhere_is_found(look):
    name, value = {
        "s3": ("RESULTS_BUCKET", "no-such-bucket"),
        "dynamodb": ("RESULTS_TABLE", "no-such-table"),
    }.get(CONTRACT["results"], ("RESULTS_URL", "rediss://:secret-word@127.0.0.1:9/0"))
    found = look(**{name: value})
    assert list(found) == ["D401"]
    assert found["D401"].is_well is False
    assert "secret-word" not in str(found)
    assert look(**{name: ""})["D401"].is_well is None


@pytest.mark.skipif(CONTRACT["results"] not in ("s3", "dynamodb"), reason="results are not at AWS")
def test_results_when_there_are_no_credentials_then_the_check_could_not_run(working):
    commands = Commands(working)
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONFIG_FILE": "/dev/null"}
    said = commands.run("doctor", AWS_SHARED_CREDENTIALS_FILE="/dev/null", **nothing, status=2)
    assert "D401 ?" in said
    assert "log in" in said
