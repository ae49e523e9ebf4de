"""A machine as Terraform makes it: what its user data write, under a real systemd, where only Docker and AWS are fakes.

systemd runs in namespaces of its own: it sees a root that nobody can write to, and none but the units given to it. The
usual ones would set up a machine, and empty /tmp first.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import BIN, eventually, need
from module_tests import add_module_tests
from test_terraform import SERVICE, initialize, run

pytestmark = pytest.mark.timeout(300)

# The client is the container here: alive while `healthy` is there, gone when told to stop unless `stubborn` is.
DOCKER = """#!/bin/bash
echo "$*" >>/mnt/calls
case $1 in
    login) cat >/dev/null ;;
    run)
        trap '' TERM
        rm -f /mnt/stop
        until [ -e /mnt/stop ]; do
            [ ! -e /mnt/healthy ] || touch "$RUNTIME_DIRECTORY/alive/acme-jobs-urgent-mail.alive"
            sleep 0.2
        done
        ;;
    stop) [ -e /mnt/stubborn ] || touch /mnt/stop ;;
esac
"""
AWS = """#!/bin/bash
echo "aws $*" | head --lines 1 >>/mnt/calls
case $1 in
    ecr) [ ! -e /mnt/unregistered ] && echo password ;;
    secretsmanager) echo '{"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"}' ;;
esac
"""
UNITS = {
    "docker.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    **{f"{name}.target": "[Unit]\nDefaultDependencies=no\n" for name in ("sysinit", "basic", "shutdown")},
    "multi-user.target": "[Unit]\nRequires=basic.target\n",
    # Sooner than on a machine, and with a place for the fakes to write to.
    "worker@.service.d/test.conf": "[Service]\nWatchdogSec=8\nRestartSec=1\nTimeoutStopSec=6\nReadWritePaths=/mnt\n",
}
BOOT = """
set -eu
mkdir -p "$CGROUP"
echo $$ >"$CGROUP/cgroup.procs"
exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child --mount-proc bash -eu -c '
    mount --make-rprivate /
    mount -t overlay overlay -o "lowerdir=$ROOT/etc:/etc" /etc
    mount --bind "$ROOT/etc/systemd/system" /etc/systemd/system
    mount -t overlay overlay -o "lowerdir=$ROOT/usr/local:/usr/local" /usr/local
    mount --bind "$ROOT/mnt" /mnt
    for folder in /home /root /run /tmp /var; do mount -t tmpfs tmpfs $folder; done
    mount -o remount,bind,ro /
    for folder in / /etc /usr /usr/local; do
        if touch "$folder/written" 2>/dev/null; then echo "$folder can be written to" >&2; exit 1; fi
    done
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /run/systemd/system
    exec systemd --system --unit=multi-user.target --log-target=null --show-status=no
'
"""


@pytest.fixture
def on_ec2(project):
    """Bake a project that runs on machines, with the tests of its modules."""
    folder = project(compute="ec2", credentials="keys", queues="urgent-mail")
    add_module_tests(folder)
    return folder


@pytest.fixture
def user_data(on_ec2):
    """Return what the machine of a queue is started with."""
    need("terraform")
    folder = on_ec2 / SERVICE
    initialize(folder)
    said = run("terraform", "test", "-json", "-verbose", "-filter=tests/compute_ec2.tftest.hcl", cwd=folder)
    reports = map(json.loads, said.splitlines())
    plan = next(report["test_plan"] for report in reports if "test_plan" in report)
    (template,) = (
        each["change"]["after"] for each in plan["resource_changes"] if each["type"] == "aws_launch_template"
    )
    text = base64.b64decode(template["user_data"]).decode()
    assert text.startswith("#cloud-config\n")
    return yaml.safe_load(text)


def test_scripts_when_linted_then_are_clean(user_data, tmp_path):
    scripts = [tmp_path / "runcmd.sh"]
    scripts[0].write_text("\n".join(["#!/bin/sh", *user_data["runcmd"], ""]), encoding="utf-8")
    for file in user_data["write_files"]:
        if file["path"].endswith(".sh"):
            assert file["permissions"] == "0755"
            scripts.append(tmp_path / Path(file["path"]).name)
            scripts[-1].write_text(file["content"], encoding="utf-8")
    assert len(scripts) == 6
    run(BIN / "shellcheck", *scripts, cwd=tmp_path)


class Machine:
    """A machine that runs."""

    def __init__(self, root, process):
        self.mnt = root / "mnt"
        self.process = process

    def calls(self, command):
        """Return how often Docker was told something, or AWS."""
        path = self.mnt / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return sum(line.startswith(f"{command} ") for line in lines)

    def run(self, *command):
        (systemd,) = psutil.Process(self.process.pid).children()
        enter = ("nsenter", f"--target={systemd.pid}", "--mount", "--pid")
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60)

    def systemctl(self, *arguments):
        done = self.run("systemctl", *arguments)
        return done.stdout.strip() + done.stderr.strip()

    def state(self, unit="worker@urgent-mail"):
        return self.systemctl("show", "--property=ActiveState", "--value", unit)


@contextmanager
def machine(root, files, metadata_url):
    """Start a machine with these files."""
    units = root / "etc" / "systemd" / "system"
    own = {
        **{str(units / name): text for name, text in UNITS.items()},
        str(units / "drain.service.d" / "test.conf"): (
            f"[Service]\nEnvironment=AWS_EC2_METADATA_SERVICE_ENDPOINT={metadata_url}\nIPAddressAllow=localhost\n"
        ),
        str(units / "worker@.service.d" / "metadata.conf"): (
            f"[Service]\nEnvironment=AWS_EC2_METADATA_SERVICE_ENDPOINT={metadata_url}\n"
        ),
        str(root / "usr" / "local" / "bin" / "docker"): DOCKER,
        str(root / "usr" / "local" / "bin" / "aws"): AWS,
    }
    for path, text in ({f"{root}{file['path']}": file["content"] for file in files} | own).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
        Path(path).chmod(0o755 if "/usr/local/" in path else 0o644)
    wanted = units / "multi-user.target.wants"
    wanted.mkdir()
    for name, template in (("worker@urgent-mail.service", "worker@.service"), ("drain.service", "drain.service")):
        (wanted / name).symlink_to(f"../{template}")
    (root / "mnt").mkdir()

    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    cgroup = Path(next(where for _, where, kind, *_ in mounts if kind == "cgroup2")) / f"machine-{uuid.uuid4().hex}"
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/usr/lib/systemd",
        "ROOT": str(root),
        "CGROUP": str(cgroup),
        "container": "test",  # so that it leaves the kernel's settings alone
        "SYSTEMD_UNIT_PATH": "/etc/systemd/system",
        "SYSTEMD_GENERATOR_PATH": "",
        "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": "",
    }
    process = subprocess.Popen(["bash", "-c", BOOT], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield Machine(root, process)
    finally:
        process.kill()
        print(process.communicate()[1])
        eventually(lambda: "populated 0" in (cgroup / "cgroup.events").read_text(), 10)
        for folder in sorted(cgroup.rglob("*/"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        cgroup.rmdir()


class Metadata(BaseHTTPRequestHandler):
    """Tells whether the machine is to go."""

    def do_PUT(self):
        self.answer("token")

    def do_GET(self):
        known = {"target-lifecycle-state": self.server.lifecycle, "instance-id": "i-1"}
        self.answer(known.get(self.path.rpartition("/")[2]))

    def answer(self, body):
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write((body or "").encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def metadata():
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        server.lifecycle = "InService"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def need_namespaces():
    """Skip where this process may make none, or systemd is not there."""
    for command in ("systemctl", "unshare", "nsenter", "jq", "curl"):
        need(command)
    tried = subprocess.run(["unshare", "--mount", "--pid", "--cgroup", "--fork", "true"], capture_output=True)
    if tried.returncode or os.geteuid():
        pytest.skip("a systemd of its own needs root and namespaces")


def looks(project):
    """Return the runbook's command lines for a shell on a machine."""
    lines = (project / "docs" / "runbook.md").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip().startswith(("systemctl ", "journalctl "))]


def test_worker_when_run_by_systemd_then_is_supervised(on_ec2, user_data, metadata, tmp_path):
    need_namespaces()
    files = user_data["write_files"]
    root = tmp_path / "root"
    completed = "aws autoscaling complete-lifecycle-action --lifecycle-action-result CONTINUE --lifecycle-hook-name"
    with machine(root, files, f"http://127.0.0.1:{metadata.server_port}") as made:
        # It has started when it polls, and not before.
        assert eventually(lambda: made.calls("run") == 1, 20)
        time.sleep(3)
        assert made.state() == "activating"
        assert made.calls(completed) == 0
        (made.mnt / "healthy").touch()
        assert eventually(lambda: made.state() == "active", 20)
        assert made.calls(f"{completed} start-worker") == 1
        assert made.systemctl("show", "--property=NRestarts", "--value", "worker@urgent-mail") == "0"

        # Whoever is on call looks at it. Nobody keeps a journal here, so that one tells nothing.
        status, journal = (made.run("bash", "-c", line) for line in looks(on_ec2))
        assert status.stdout.count("Active: active (running)") == 2, status
        assert "No journal files were found" in journal.stderr, journal

        # One that is not alive is told to stop, and started anew.
        (made.mnt / "healthy").unlink()
        assert eventually(lambda: made.calls("run") == 2, 40)
        assert made.calls("stop") == 1
        (made.mnt / "healthy").touch()
        assert eventually(lambda: made.state() == "active", 20)

        # What failed is told to CloudWatch, because the machine may go.
        reports = made.calls("aws logs put-log-events")
        (made.mnt / "unregistered").touch()
        made.systemctl("restart", "--no-block", "worker@urgent-mail")
        assert eventually(lambda: made.calls("aws logs put-log-events") > reports, 20)
        (made.mnt / "unregistered").unlink()
        assert eventually(lambda: made.state() == "active", 20)

        # The machine is to go.
        assert made.state("drain") == "active"
        assert made.calls(f"{completed} stop-worker") == 0
        started = made.calls("run")
        metadata.lifecycle = "Terminated"
        assert eventually(lambda: made.state("drain") == "inactive", 20)
        assert made.state() == "inactive"
        assert made.calls("run") == started
        assert made.calls(f"{completed} stop-worker") == 1

        # What does not stop is killed in time, the container as well.
        made.systemctl("start", "worker@urgent-mail")
        assert made.state() == "active"
        (made.mnt / "stubborn").touch()
        removed, stopped, began = made.calls("rm"), made.calls("stop"), time.monotonic()
        made.systemctl("stop", "worker@urgent-mail")
        assert 5 < time.monotonic() - began < 20
        assert (made.calls("stop"), made.calls("rm")) == (stopped + 1, removed + 1)
        assert made.state() == "failed"
