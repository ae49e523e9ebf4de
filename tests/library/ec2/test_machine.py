"""What runs on a machine beside the worker's container: the scripts and units of the chassis.

Docker, AWS and systemd are programs that note how they were called; the machine's metadata is a server of our own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
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

from library.support import PROJECT, eventually, module

contract = module("service").contract()
health = module("health")
liveness = module("liveness")

MACHINE = PROJECT / "chassis" / "terraform" / "service" / "ec2"
SCRIPTS = "/usr/local/lib/worker"
QUEUE = contract.queues[0]
CONTAINER = f"worker-{QUEUE.name}"
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
    "systemd-notify": "",
    "systemctl": '[ ! -e "$HERE/systemctl-fails" ]',
    "sleep": "/bin/sleep 0.05",
}


def need(command: str) -> None:
    """Skip where a program is missing; in CI, fail instead."""
    if shutil.which(command) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{command} is missing, and CI should have installed it")
        pytest.skip(f"{command} is not installed on this machine")


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

    def beat(self) -> None:
        """Do what a worker does that is alive."""
        folder = self.here / "run" / "alive"
        folder.mkdir(exist_ok=True)
        (folder / health.liveness_file(contract, QUEUE).name).touch()

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
    process = machine.start("prepare.sh", QUEUE.name, **more)
    said, _ = process.communicate(timeout=20)
    return process.returncode, said


def test_image_is_pulled_and_what_a_crash_left_is_removed(machine):
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


def test_secrets_are_for_root_alone_and_never_said(machine):
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


def test_keys_of_a_secret_are_variables_in_capitals(machine):
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
def test_secret_that_does_not_hold_what_it_should_is_not_said_either(machine, secret):
    (machine.here / "secret").write_text(secret, encoding="utf-8")
    status, said = prepare(machine, SECRETS=f"={ARN}")
    assert status == 1
    assert f"secret {ARN} has no value or is not a JSON object" in said
    assert "se/cr+et" not in said
    assert "pull" not in str(machine.calls("docker"))


def test_container_has_what_its_worker_needs_and_no_more(machine):
    machine.start("run.sh", QUEUE.name)
    assert eventually(lambda: machine.calls("docker"), 10)
    (call,) = machine.calls("docker")
    folder = machine.here / "run"
    assert call.endswith(f" {IMAGE} {contract.service} worker {QUEUE.name}")
    for option in (
        f"run --rm --name {CONTAINER} --init --network host ",
        " --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --pids-limit ",
        f" --stop-timeout {contract.stop_timeout_seconds} ",
        f" --env-file /etc/worker/service.env --env-file {folder}/secrets.env ",
        f" --mount type=bind,source={folder}/alive,target=/run/alive --env LIVENESS_DIRECTORY=/run/alive ",
        f" --log-opt awslogs-region={contract.region} --log-opt awslogs-group=/log/group ",
        f" --log-opt awslogs-stream={QUEUE.name}/",
    ):
        assert option in call


def test_systemd_is_told_as_long_as_the_worker_is_alive(machine):
    machine.start("run.sh", QUEUE.name)

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


def test_worker_told_to_stop_is_watched_until_its_end(machine):
    process = machine.start("run.sh", QUEUE.name)
    assert eventually(lambda: machine.calls("docker"), 10)
    process.send_signal(signal.SIGTERM)
    assert eventually(lambda: machine.calls("docker")[1:] == [f"stop {CONTAINER}"], 10)
    machine.beat()
    assert eventually(lambda: machine.calls("systemd-notify"), 10)
    assert process.poll() is None
    machine.end_container()
    assert process.wait(timeout=10) == 0
    assert len(machine.calls("docker")) == 2


def test_worker_told_to_stop_just_after_its_start_is_watched(machine):
    sooner = machine.here / "sooner"
    sooner.write_text("trap '[[ $BASH_COMMAND == client=* ]] && kill -TERM $$' DEBUG", encoding="utf-8")
    process = machine.start("run.sh", QUEUE.name, BASH_ENV=str(sooner))
    assert eventually(lambda: f"stop {CONTAINER}" in machine.calls("docker"), 10)
    machine.beat()
    assert eventually(lambda: machine.calls("systemd-notify"), 10)
    assert process.poll() is None
    machine.end_container()
    assert process.wait(timeout=10) == 0


def test_status_is_that_of_the_worker(machine):
    process = machine.start("run.sh", QUEUE.name)
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
def test_worker_is_stopped_when_the_machine_is_to_go(machine, notice):
    with metadata() as server:
        process = machine.start("drain.sh", AWS_EC2_METADATA_SERVICE_ENDPOINT=server.url)
        assert eventually(lambda: server.rounds >= 3, 10)
        assert process.poll() is None
        assert machine.calls("systemctl") == []
        server.known.update(NOTICES[notice])
        assert process.wait(timeout=10) == 0
    assert machine.calls("systemctl") == ["stop worker@*.service"]


@pytest.mark.parametrize("fault", ["PUT", "GET", "hang"])
def test_metadata_that_fail_stop_nobody_and_are_asked_again(machine, fault):
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


def test_metadata_that_are_not_there_stop_nobody(machine):
    process = machine.start("drain.sh", AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:9")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    assert machine.calls("systemctl") == []


def test_worker_that_could_not_be_told_to_stop_is_told_again(machine):
    (machine.here / "systemctl-fails").touch()
    with metadata() as server:
        server.known.update(NOTICES["Spot"])
        process = machine.start("drain.sh", AWS_EC2_METADATA_SERVICE_ENDPOINT=server.url)
        assert process.wait(timeout=10) == 1
    assert "Restart=on-failure\n" in (MACHINE / "drain.service").read_text(encoding="utf-8")


def units(folder: Path) -> list[str]:
    """Write the units where their scripts are found, and return their names."""
    (folder / "docker.service").write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    for path in MACHINE.glob("*.service"):
        text = path.read_text(encoding="utf-8").replace(SCRIPTS, str(MACHINE))
        (folder / path.name.replace("@", f"@{QUEUE.name}")).write_text(text, encoding="utf-8")
    return sorted(path.name for path in folder.glob("*.service") if path.stem != "docker")


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    need("systemd-analyze")
    names = units(tmp_path)
    assert names == ["drain.service", f"worker@{QUEUE.name}.service"]
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},  # and the usual places
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


@pytest.mark.parametrize("unit", EXPOSURE)
def test_units_may_do_little(unit):
    need("systemd-analyze")
    path = MACHINE / f"{unit}.service"
    command = ("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE[unit]}", path)
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Overall exposure level" in run.stdout


def test_watchdog_gives_a_worker_more_time_than_its_health_check_does():
    text = (MACHINE / "worker@.service").read_text(encoding="utf-8")
    (seconds,) = map(int, re.findall(r"^WatchdogSec=([0-9]+)$", text, re.MULTILINE))
    assert seconds > health.STALE_AFTER_SECONDS + liveness.BEAT_SECONDS
