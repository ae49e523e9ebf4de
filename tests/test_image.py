"""The image, built and run for real; and compose.yaml, brought up as it stands, by podman."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from conftest import BIN, PROJECT, eventually, label, need, source_path
from test_terraform import run

pytestmark = pytest.mark.timeout(900)

# A build takes Python's packages from wherever this machine takes them.
BUILD = ("--isolation", "chroot", "--network", "host")
WORKER = "worker-high"


def logs_of(container):
    done = subprocess.run(("podman", "logs", container), capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def status(*command):
    return subprocess.run(command, capture_output=True, timeout=60).returncode


class Containers:
    """A baked project's compose.yaml at work."""

    def __init__(self, folder, suffix):
        self.folder, self.suffix = folder, suffix
        self.image = "localhost/acme-jobs"

    def compose(self, *arguments):
        return run(BIN / "podman-compose", f"--podman-build-args={' '.join(BUILD)}", *arguments, cwd=self.folder)

    def name(self, service):
        return f"{self.folder.name}_{service}_1"

    def logs(self, service):
        return logs_of(self.name(service))

    def is_healthy(self, service):
        """Ask as the engine does, which here has no systemd to remind it."""
        return status("podman", "healthcheck", "run", self.name(service)) == 0

    def execute(self, service, *command):
        return run("podman", "exec", self.name(service), *command, timeout=120)


FLAVOURS = [
    {"broker": "sqs-standard", "results": "dynamodb", "credentials": "role", "compute": "ecs"},
    {"broker": "sqs-fifo", "results": "s3", "credentials": "keys", "compute": "ec2"},
]


@pytest.fixture(scope="module", params=FLAVOURS, ids=label)
def built(request, bake, tmp_path_factory):
    """Build the image of a project that holds a secret, and much that no worker needs."""
    need("podman")
    folder = shutil.copytree(bake(**request.param, queues="high, low"), tmp_path_factory.mktemp("image") / "acme-jobs")
    path = folder / "contract.json"
    contract = json.loads(path.read_text(encoding="utf-8")) | {"wait_time_seconds": 1}
    path.write_text(json.dumps(contract), encoding="utf-8")
    (folder / ".env").write_text("AWS_SECRET_ACCESS_KEY=not-for-images\n")
    (folder / "src" / "acme_jobs" / ".env").write_text("AWS_SECRET_ACCESS_KEY=not-for-images\n")
    containers = Containers(folder, ".fifo" if request.param["broker"] == "sqs-fifo" else "")
    # Names and a port belong to the whole machine: one process of the tests at a time.
    with (Path(tempfile.gettempdir()) / "test_image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        containers.compose("build")
        yield containers
        for image in ("acme-jobs", "acme-jobs-development"):
            status("podman", "rmi", "--force", f"localhost/{image}")


@pytest.fixture(scope="module")
def up(built):
    """Bring it all up, and wait until the examples are done on every queue."""
    with ExitStack() as stack:
        stack.callback(built.compose, "down", "--timeout", "5")
        built.compose("up", "--detach", "--no-build")
        done = eventually(
            lambda: all(re.search(rf"{queue}: .*-> 4", built.logs("producer")) for queue in ("high", "low"))
        )
        assert done, built.logs("emulator") + built.logs("producer")
        yield built


def test_dockerfile_is_clean():
    run(BIN / "hadolint", *PROJECT.glob("*Dockerfile"))


@pytest.mark.slow
def test_image_holds_no_secret_and_nothing_a_worker_does_not_need(built):
    found = run(
        *("podman", "run", "--rm", "--user", "0", built.image, "sh", "-c"),
        "ls -a /opt/service /opt/service/bin; find / -xdev -name .env -o -xdev -path '/build*';"
        "grep -r not-for-images /opt || true",
    )
    assert "acme-jobs" in found
    assert not re.search(r"not-for-images|\.env|/build|pytest|moto|ruff|\bpip\b", found), found
    packages = built_packages(built)
    pinned = (built.folder / "requirements.txt").read_text(encoding="utf-8")
    assert packages
    assert [package for package in packages if f"{package}==" not in pinned] == ["acme-jobs"]


def built_packages(built):
    """Return the names of what is installed beside Python's own."""
    code = (
        "import importlib.metadata as m, site; print(*{d.name for d in m.distributions(path=site.getsitepackages())})"
    )
    names = run("podman", "run", "--rm", built.image, "python", "-c", code).split()
    return sorted(re.sub(r"[-_.]+", "-", name).lower() for name in names)


@pytest.mark.slow
def test_image_needs_no_root_and_writes_nowhere_but_tmp(built):
    # Without what podman adds of its own, as Fargate does.
    container = ("podman", "run", "--rm", "--read-only", "--read-only-tmpfs=false", built.image)
    assert run(*container, "id", "-u") == "10001"
    assert run(*container, "sh", "-c", "touch /tmp/here && ls /tmp") == "here"
    code = "import os; print([f for f in ('/', '/opt/service', '/etc', '/var/tmp', '/home') if os.access(f, os.W_OK)])"
    assert run(*container, "python", "-c", code) == "[]"
    assert run("podman", "run", "--rm", built.image, "sh", "-c", "find / -xdev -perm -4000 -writable | wc -l") == "0"


@pytest.mark.slow
def test_every_queue_is_worked_on_by_containers_without_rights(up):
    for queue in ("high", "low"):
        assert eventually(lambda service=f"worker-{queue}": up.is_healthy(service)), up.logs(f"worker-{queue}")
    assert '"outcome": "succeeded"' in up.logs("worker-low")
    rights = up.execute(WORKER, "sh", "-c", "grep -E 'CapEff|NoNewPrivs' /proc/1/status; touch /opt/x 2>&1 || true")
    assert rights.split()[1] == "0000000000000000"
    assert "NoNewPrivs:\t1" in rights
    assert "Read-only file system" in rights


@pytest.mark.slow
def test_health_follows_the_polls_and_not_the_process(up):
    assert eventually(lambda: up.is_healthy(WORKER))
    run("podman", "pause", up.name("emulator"))
    try:
        assert eventually(lambda: not up.is_healthy(WORKER), 120), "healthy, with no poll answered"
        assert run("podman", "inspect", up.name(WORKER), "--format", "{{.State.Running}}") == "true"
    finally:
        run("podman", "unpause", up.name("emulator"))
    assert eventually(lambda: up.is_healthy(WORKER)), up.logs(WORKER)


@pytest.mark.slow
def test_stop_lets_the_task_end_and_the_container_with_it(up):
    task = up.execute("worker-low", "acme-jobs", "send", "examples.number_pages", "50", "0.1", "--group", "g")
    assert eventually(lambda: f'"task_id": "{task}"' in up.logs(WORKER) or is_running(up), 30)
    run("podman", "stop", "--time", "60", up.name(WORKER))
    assert run("podman", "inspect", up.name(WORKER), "--format", "{{.State.ExitCode}}") == "0"
    assert re.search(rf'"succeeded in [5-9].*"task_id": "{task}"', up.logs(WORKER)), up.logs(WORKER)[-3000:]
    run("podman", "start", up.name(WORKER))


def is_running(up):
    """Tell whether a task has begun: its message is in flight."""
    code = (
        f"import boto3; print(boto3.client('sqs').get_queue_attributes(QueueUrl='http://emulator:4566/123456789012/"
        f"acme-jobs-development-high{up.suffix}', AttributeNames=['All'])"
        f"['Attributes']['ApproximateNumberOfMessagesNotVisible'])"
    )
    return up.execute("worker-low", "python", "-c", code) != "0"


@pytest.mark.slow
def test_worker_as_first_process_heeds_sigterm(up):
    """Without an init between: as process 1 it gets no signal that it has no handler for."""
    variables = [
        line for line in up.execute(WORKER, "env").splitlines() if line.startswith(("AWS", "QUEUE", "RES", "ENV"))
    ]
    flags = [f"--env={variable}" for variable in variables]
    networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}"
    network = run("podman", "inspect", up.name(WORKER), "--format", networks)
    started = ("podman", "run", "--detach", "--name", "first-process", "--network", network, *flags, up.image)
    run(*started, "acme-jobs", "worker", "low")
    try:
        health = ("podman", "exec", "first-process", "acme-jobs", "health", "low")
        assert eventually(lambda: status(*health) == 0)
        run("podman", "stop", "--time", "60", "first-process")
        assert run("podman", "inspect", "first-process", "--format", "{{.State.ExitCode}}") == "0"
    finally:
        status("podman", "rm", "--force", "first-process")


@pytest.mark.slow
def test_images_work_on_rabbitmq(bake):
    """On the server of this machine, since compose.yaml wants RabbitMQ's own image, which may be out of reach."""
    need("podman")
    need("rabbitmqctl")
    folder = bake(broker="rabbitmq", results="none", queues="only")
    image, name = "localhost/acme-rabbitmq", "on-rabbitmq"
    run("podman", "build", "--quiet", *BUILD, "--tag", image, folder)
    flower = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["flower"]
    dockerfile = ("--file", flower["build"]["dockerfile"])
    run("podman", "build", "--quiet", *BUILD, *dockerfile, "--tag", f"{image}-flower", folder)
    emulator = subprocess.Popen(
        [sys.executable, "-m", "celery_aws.dev.emulator"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source_path(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        variables = json.loads(emulator.stdout.readline())
        flags = [f"--env={name}={value}" for name, value in variables.items()]
        contained = ("--network", "host", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", *flags)
        run("podman", "run", "--detach", "--name", name, *contained, image, "acme-jobs", "worker", "only")
        inside = ("podman", "exec", name, "acme-jobs")
        assert eventually(lambda: status(*inside, "health", "only") == 0)

        open_to_all = status("podman", "run", "--rm", *contained, f"{image}-flower", *flower["command"]) == 0
        assert not open_to_all, "Flower let everybody in"
        login = ("--env=FLOWER_BASIC_AUTH=somebody:here", f"{image}-flower")
        run("podman", "run", "--detach", "--name", f"{name}-flower", *contained, *login, *flower["command"])
        page = ("curl", "--silent", "--fail", "http://127.0.0.1:5555/api/workers")
        assert eventually(lambda: status(*page, "--user", "somebody:here") == 0), logs_of(f"{name}-flower")
        assert status(*page) != 0

        task = run(*inside, "send", "examples.number_pages", "30", "0.1")
        time.sleep(1)  # Until it has begun: the stop lets it end.
        run("podman", "stop", "--time", "60", name)
        assert run("podman", "inspect", name, "--format", "{{.State.ExitCode}}") == "0"
        assert re.search(rf'"succeeded in [3-6].*"task_id": "{task}"', logs_of(name)), logs_of(name)[-3000:]
        assert variables["BROKER_PASSWORD"] not in logs_of(name)
    finally:
        for suffix in ("-flower", ""):
            status("podman", "rm", "--force", name + suffix)
            status("podman", "rmi", "--force", image + suffix)
        emulator.stdin.close()
        emulator.wait(60)
