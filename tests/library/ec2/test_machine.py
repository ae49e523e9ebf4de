"""What runs on a machine beside the worker's container: the scripts and units of the chassis.

Docker, AWS and systemd are programs that note how they were called; the machine's metadata is a server of our own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from library.support import BROKER, PROJECT, eventually, module, need

contract = module("service").contract()
health = module("health")
liveness = module("liveness")

MACHINE = PROJECT / "chassis" / "terraform" / "service" / "ec2"
SCRIPTS = "/usr/local/lib/worker"
WORKER = contract.workers[0]
CONTAINER = f"worker-{WORKER.name}"
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
IMAGE = f"{REGISTRY}/{contract.service}-staging:1"

EXPOSURE = {"drain": 16, "worker@": 19}
"""Tenths that `systemd-analyze security` may count, one more than it does. What it counts: both are root's, see the
network and talk to sockets, because Docker and systemd let root alone tell them what to do."""

PROGRAMS = {
    "docker": """
        case $1 in
            login) echo "with $(cat)" >>"$HERE/calls" ;;
            run) trap '' TERM; until [ -e "$HERE/ended" ]; do /bin/sleep 0.02; done; exit "$(cat "$HERE/ended")" ;;
        esac""",
    "aws": """
        case $1 in
            ecr) echo password ;;
            secretsmanager | ssm) cat "$HERE/secret" ;;
        esac""",
    "journalctl": 'case $1 in --sync) ;; *) cat "$HERE/journal" ;; esac',
    "systemd-notify": "",
    "systemctl": '[ ! -e "$HERE/systemctl-fails" ]',
    "sleep": "/bin/sleep 0.05",
}


@dataclass
class Machine:
    """A machine, as the scripts see it."""

    here: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, script: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start a script, as its unit does."""
        process = subprocess.Popen(
            [MACHINE / script, *arguments],
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def calls(self, program: str) -> list[str]:
        """Return how a program was called so far."""
        path = self.here / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line.removeprefix(f"{program} ") for line in lines if line.startswith(f"{program} ")]

    def beat(self, name: str = WORKER.name) -> None:
        """Do what a worker does that is alive, or the beat."""
        folder = self.here / "run" / "alive"
        folder.mkdir(exist_ok=True)
        (folder / health.liveness_file(contract, name).name).touch()

    def end_container(self, status: int = 0) -> None:
        """Let the container end."""
        (self.here / "new").write_text(str(status), encoding="utf-8")
        (self.here / "new").rename(self.here / "ended")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Return a machine on which nothing runs yet."""
    if sys.platform != "linux":
        pytest.skip("machines run Linux, and so do their scripts")
    for program in ("curl", "jq"):
        need(program)
    for name in ("bin", "run"):
        (tmp_path / name).mkdir()
    for name, does in PROGRAMS.items():
        path = tmp_path / "bin" / name
        noted = "" if name == "sleep" else f'echo "{name} $*" >>"$HERE/calls"'
        path.write_text(f"#!/bin/bash\n{noted}\n{does}\n", encoding="utf-8")
        path.chmod(0o755)
    made = Machine(
        tmp_path,
        {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HERE": str(tmp_path),
            "RUNTIME_DIRECTORY": str(tmp_path / "run"),
            "SERVICE": contract.service,
            "GROUP_PREFIX": f"{contract.service}-staging",
            "HOSTNAME": "ip-10-0-0-1",
            "IMAGE": IMAGE,
            "STOP_TIMEOUT_SECONDS": str(contract.stop_timeout_seconds),
            "LOG_GROUP": "/log/group",
            "SECRETS": "",
            "TASK_SECRETS": "",
            "AWS_DEFAULT_REGION": contract.region,
        },
    )
    yield made
    made.end_container()
    for process in made.started:
        process.kill()
        process.communicate()


def prepare(machine: Machine, **more: str) -> tuple[int, str]:
    """Run prepare.sh to its end, and return its status and all it said."""
    process = machine.start("prepare.sh", WORKER.name, **more)
    said, _ = process.communicate(timeout=20)
    return process.returncode, said


def test_start_when_after_a_crash_then_pulls_and_cleans_up(machine):
    status, said = prepare(machine)
    assert status == 0, said
    assert machine.calls("docker") == [
        f"rm --force {CONTAINER}",
        f"login --username AWS --password-stdin {REGISTRY}",
        f"pull --quiet {IMAGE}",
    ]
    assert machine.calls("with") == ["password"]
    assert (machine.here / "run" / "alive").stat().st_mode & 0o7777 == 0o1777
    assert (machine.here / "run" / "secrets.env").read_text() == ""
    assert machine.calls("aws") == ["ecr get-login-password"]


KEY = {"AWS_ACCESS_KEY_ID": "AKIDAKIDAKID", "AWS_SECRET_ACCESS_KEY": "se/cr+et=$(id)"}
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:worker"


def test_secrets_when_written_then_are_readable_by_root_only(machine):
    (machine.here / "secret").write_text(json.dumps(KEY), encoding="utf-8")
    status, said = prepare(machine, SECRETS=f"={ARN} OTHER_={ARN}-2")
    assert status == 0, said
    path = machine.here / "run" / "secrets.env"
    assert path.read_text().splitlines() == [
        f"{prefix}{name}={value}" for prefix in ("", "OTHER_") for name, value in KEY.items()
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    assert not [value for value in (*KEY.values(), "password") if value in said]
    assert [re.sub(r".*--secret-id (\S+) .*", r"\1", call) for call in machine.calls("aws")[:2]] == [ARN, f"{ARN}-2"]


def test_secret_when_read_then_its_keys_are_variables(machine):
    (machine.here / "secret").write_text('{"username": "a", "password": "b=c"}', encoding="utf-8")
    assert prepare(machine, SECRETS=f"OTHER_={ARN}")[0] == 0
    assert (machine.here / "run" / "secrets.env").read_text() == "OTHER_USERNAME=a\nOTHER_PASSWORD=b=c\n"


def test_secrets_of_tasks_when_read_then_are_variables(machine):
    (machine.here / "secret").write_text(r'{"a": "b=c\n"} $(id)' + "\n", encoding="utf-8")
    parameter = "arn:aws:ssm:eu-west-1:123456789012:parameter/orders/database"
    status, said = prepare(machine, TASK_SECRETS=f"PARTNER_KEY={ARN} DATABASE={parameter}")
    assert status == 0, said
    value = r'{"a": "b=c\n"} $(id)'
    kept = (machine.here / "run" / "secrets.env").read_text()
    assert kept == f"PARTNER_KEY={value}\nDATABASE={value}\n"
    assert value not in said
    calls = machine.calls("aws")
    assert f"--secret-id {ARN} " in calls[0]
    assert f"--name {parameter} --with-decryption " in calls[1]


def test_secret_when_of_two_lines_then_is_refused_and_not_logged(machine):
    (machine.here / "secret").write_text("se/cr\n+et\n", encoding="utf-8")
    status, said = prepare(machine, TASK_SECRETS=f"PARTNER_KEY={ARN}")
    assert status == 1
    assert f"secret {ARN} has more than one line" in said
    assert "se/cr" not in said


@pytest.mark.parametrize("secret", ['"se/cr+et"', "se/cr+et", '{"AWS_SECRET_ACCESS_KEY": "se/cr+et"'])
def test_secret_when_malformed_then_is_not_logged(machine, secret):
    (machine.here / "secret").write_text(secret, encoding="utf-8")
    status, said = prepare(machine, SECRETS=f"={ARN}")
    assert status == 1
    assert f"secret {ARN} has no value or is not a JSON object" in said
    assert "se/cr+et" not in said
    assert "pull" not in str(machine.calls("docker"))


def test_container_when_started_then_has_least_privileges(machine):
    machine.start("run.sh", WORKER.name)
    assert eventually(lambda: machine.calls("docker"), 10)
    (call,) = machine.calls("docker")
    folder = machine.here / "run"
    assert call.endswith(f" {IMAGE} {contract.service} worker {WORKER.name}")
    for option in (
        f"run --rm --name {CONTAINER} --init --network host ",
        " --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --pids-limit ",
        f" --stop-timeout {contract.stop_timeout_seconds} ",
        f" --env-file /etc/worker/service.env --env-file {folder}/secrets.env ",
        f" --mount type=bind,source={folder}/alive,target=/run/alive --env LIVENESS_DIRECTORY=/run/alive ",
        f" --log-opt awslogs-region={contract.region} --log-opt awslogs-group=/log/group ",
        f" --log-opt awslogs-stream={WORKER.name}/",
    ):
        assert option in call


def test_container_of_the_beat_runs_it_and_is_watched(machine):
    machine.start("run.sh", health.BEAT)
    assert eventually(lambda: machine.calls("docker"), 10)
    assert machine.calls("docker")[0].endswith(f" {IMAGE} {contract.service} beat")
    machine.beat(health.BEAT)
    assert eventually(lambda: machine.calls("systemd-notify"), 10)


def test_watchdog_when_the_worker_is_alive_then_is_notified(machine):
    machine.start("run.sh", WORKER.name)

    def told():
        return machine.calls("systemd-notify")

    assert eventually(lambda: machine.calls("docker"), 10)
    time.sleep(0.5)
    assert told() == []
    machine.beat()
    assert eventually(told, 10) == ["READY=1 WATCHDOG=1"]
    time.sleep(0.5)
    assert len(told()) == 1
    for number in (2, 3):
        machine.beat()
        assert eventually(lambda number=number: len(told()) == number, 10)


def test_worker_when_stopping_then_is_watched_until_it_ends(machine):
    process = machine.start("run.sh", WORKER.name)
    assert eventually(lambda: machine.calls("docker"), 10)
    process.send_signal(signal.SIGTERM)
    assert eventually(lambda: machine.calls("docker")[1:] == [f"stop {CONTAINER}"], 10)
    machine.beat()
    assert eventually(lambda: machine.calls("systemd-notify"), 10)
    assert process.poll() is None
    machine.end_container()
    assert process.wait(timeout=10) == 0
    assert len(machine.calls("docker")) == 2


def test_worker_when_stopped_at_its_start_then_is_watched(machine):
    sooner = machine.here / "sooner"
    sooner.write_text("trap '[[ $BASH_COMMAND == client=* ]] && kill -TERM $$' DEBUG", encoding="utf-8")
    process = machine.start("run.sh", WORKER.name, BASH_ENV=str(sooner))
    assert eventually(lambda: f"stop {CONTAINER}" in machine.calls("docker"), 10)
    machine.beat()
    assert eventually(lambda: machine.calls("systemd-notify"), 10)
    assert process.poll() is None
    machine.end_container()
    assert process.wait(timeout=10) == 0


def test_worker_when_it_exits_then_its_status_is_kept(machine):
    process = machine.start("run.sh", WORKER.name)
    machine.end_container(69)
    assert process.wait(timeout=10) == 69


class Metadata(BaseHTTPRequestHandler):
    """Answers like a machine's metadata, version 2."""

    def do_PUT(self) -> None:
        """Give a token, which takes the place of the one before."""
        self.server.rounds += 1
        lifetime = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.server.token = f"token-{self.server.rounds}"
        self.answer(200 if self.path == "/latest/api/token" and lifetime else 400, self.server.token)

    def do_GET(self) -> None:
        """Tell what is known, to whoever has a token."""
        if self.headers["X-aws-ec2-metadata-token"] != self.server.token:
            self.answer(401, "Unauthorized")
        else:
            known = self.server.known.get(self.path.removeprefix("/latest/meta-data/"))
            self.answer(200 if known else 404, known or "Not Found")

    def answer(self, status: int, body: str) -> None:
        """Answer so, unless something is wrong."""
        if self.server.fault == "hang":
            self.server.freed.wait(30)
        if self.server.fault == self.command:
            status, body = 500, "Terminated"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def metadata() -> Iterator[ThreadingHTTPServer]:
    """Serve the metadata of a machine that stays."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.known = {"autoscaling/target-lifecycle-state": "InService"}
        server.fault, server.rounds, server.token, server.freed = "", 0, None, threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.freed.set()
            server.shutdown()


NOTICES = {
    "scale-in": {"autoscaling/target-lifecycle-state": "Terminated"},
    "Spot": {"spot/instance-action": '{"action": "terminate", "time": "2026-01-01T00:02:00Z"}'},
}


@pytest.mark.parametrize("notice", NOTICES)
def test_worker_when_its_machine_terminates_then_is_stopped(machine, notice):
    with metadata() as server:
        process = machine.start("drain.sh", AWS_EC2_METADATA_SERVICE_ENDPOINT=server.url)
        assert eventually(lambda: server.rounds >= 3, 10)
        assert process.poll() is None
        assert machine.calls("systemctl") == []
        server.known.update(NOTICES[notice])
        assert process.wait(timeout=10) == 0
    assert machine.calls("systemctl") == ["stop worker@*.service"]


@pytest.mark.parametrize("fault", ["PUT", "GET", "hang"])
def test_metadata_when_they_fail_then_are_read_again(machine, fault):
    with metadata() as server:
        server.fault = fault
        process = machine.start("drain.sh", AWS_EC2_METADATA_SERVICE_ENDPOINT=server.url)
        assert eventually(lambda: server.rounds >= 3, 15)
        assert process.poll() is None
        assert machine.calls("systemctl") == []
        server.fault = ""
        server.known.update(NOTICES["scale-in"])
        assert process.wait(timeout=10) == 0
    assert machine.calls("systemctl") == ["stop worker@*.service"]


def test_metadata_when_missing_then_the_worker_goes_on(machine):
    process = machine.start("drain.sh", AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:9")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    assert machine.calls("systemctl") == []


def test_stop_when_it_failed_then_is_repeated(machine):
    (machine.here / "systemctl-fails").touch()
    with metadata() as server:
        server.known.update(NOTICES["Spot"])
        process = machine.start("drain.sh", AWS_EC2_METADATA_SERVICE_ENDPOINT=server.url)
        assert process.wait(timeout=10) == 1
    assert "Restart=on-failure\n" in (MACHINE / "drain.service").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("event", "state", "hook"),
    [
        ("start", "InService", "start-worker"),
        ("stop", "Terminated", "stop-worker"),
        ("stop", "InService", None),  # It failed, and starts again.
    ],
)
def test_lifecycle_action_when_due_then_completes(machine, event, state, hook):
    with metadata() as server:
        server.known.update({"autoscaling/target-lifecycle-state": state, "instance-id": "i-1"})
        process = machine.start("lifecycle.sh", WORKER.name, event, AWS_EC2_METADATA_SERVICE_ENDPOINT=server.url)
        assert process.wait(timeout=20) == 0
    group = f"{contract.service}-staging-{WORKER.name}"
    assert machine.calls("aws") == [
        f"autoscaling complete-lifecycle-action --lifecycle-action-result CONTINUE --lifecycle-hook-name {hook} "
        f"--auto-scaling-group-name {group} --instance-id i-1"
        for hook in [hook]
        if hook
    ]


@pytest.mark.parametrize("event", ["start", "stop"])
def test_lifecycle_action_when_metadata_fail_then_waits(machine, event):
    process = machine.start("lifecycle.sh", WORKER.name, event, AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:9")
    assert process.wait(timeout=20) != 0
    assert machine.calls("aws") == []


@pytest.mark.parametrize(
    "said", ["pull access denied for a/b", "", 'a "quoted" \\ line\n' * 100_000], ids=["line", "nothing", "much"]
)
def test_worker_when_it_failed_then_its_output_is_logged(machine, said):
    (machine.here / "journal").write_text(said, encoding="utf-8")
    failed = {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "1", "INVOCATION_ID": "abc"}
    process = machine.start("report.sh", WORKER.name, **failed)
    assert process.wait(timeout=20) == 0
    assert any("_SYSTEMD_INVOCATION_ID=abc" in call for call in machine.calls("journalctl"))
    stream = f"--log-group-name /log/group --log-stream-name {WORKER.name}/ip-10-0-0-1"
    create, _ = machine.calls("aws")
    assert create == f"logs create-log-stream {stream}"
    calls = (machine.here / "calls").read_text(encoding="utf-8")
    (event,) = json.loads(calls.partition(f"aws logs put-log-events {stream} --log-events ")[2])
    assert event["message"].startswith(f"{WORKER.name} failed: exit-code 1\n")
    assert event["message"].endswith(said[-1000:].rstrip("\n"))
    assert time.time() - event["timestamp"] / 1000 < 60


@pytest.mark.skipif(BROKER != "rabbitmq", reason="only on RabbitMQ is there a beat")
def test_beat_when_it_failed_then_its_alarm_counts_what_is_logged(machine):
    failed = {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "1", "INVOCATION_ID": "abc"}
    assert machine.start("report.sh", "Beat", **failed).wait(timeout=20) == 0
    logged = (machine.here / "calls").read_text(encoding="utf-8").partition("--log-events ")[2]
    modules = PROJECT / "chassis" / "terraform" / "service"
    counted = re.search(r'ended += "\\"(.+?)\\""', (modules / "beat_rabbitmq.tf").read_text(encoding="utf-8"))[1]
    assert counted in json.loads(logged)[0]["message"]


def test_worker_when_it_was_stopped_then_nothing_is_reported(machine):
    assert machine.start("report.sh", WORKER.name, SERVICE_RESULT="success").wait(timeout=20) == 0
    assert machine.calls("aws") == []


def test_unit_when_read_then_runs_the_lifecycle_in_order():
    """systemd runs ExecStartPost after READY, and ExecStopPost after the worker and after a failed start."""
    text = (MACHINE / "worker@.service").read_text(encoding="utf-8")
    commands = re.findall(r"^(ExecStart|ExecStartPost|ExecStopPost)=-?(\S+/)?(\S+)(.*)$", text, re.MULTILINE)
    assert "Type=notify\n" in text
    assert [(when, command + rest) for when, _, command, rest in commands] == [
        ("ExecStart", "run.sh %i"),
        ("ExecStartPost", "lifecycle.sh %i start"),
        ("ExecStopPost", "docker rm --force worker-%i"),
        ("ExecStopPost", "report.sh %i"),
        ("ExecStopPost", "lifecycle.sh %i stop"),
    ]


def units(folder: Path) -> list[str]:
    """Write the units where their scripts are found, and return their names."""
    (folder / "docker.service").write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    for path in MACHINE.glob("*.service"):
        text = path.read_text(encoding="utf-8").replace(SCRIPTS, str(MACHINE))
        (folder / path.name.replace("@", f"@{WORKER.name}")).write_text(text, encoding="utf-8")
    return sorted(path.name for path in folder.glob("*.service") if path.stem != "docker")


def test_units_when_verified_then_are_valid(tmp_path):
    need("systemd-analyze")
    names = units(tmp_path)
    assert names == ["drain.service", f"worker@{WORKER.name}.service"]
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},  # and the usual places
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


@pytest.mark.parametrize("unit", EXPOSURE)
def test_units_when_analysed_then_are_confined(unit):
    need("systemd-analyze")
    path = MACHINE / f"{unit}.service"
    command = ("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE[unit]}", path)
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Overall exposure level" in run.stdout


def test_watchdog_when_set_then_outlasts_the_health_check():
    text = (MACHINE / "worker@.service").read_text(encoding="utf-8")
    (seconds,) = map(int, re.findall(r"^WatchdogSec=([0-9]+)$", text, re.MULTILINE))
    assert seconds > health.STALE_AFTER_SECONDS + liveness.BEAT_SECONDS
