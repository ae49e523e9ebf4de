"""The library's tests on servers that it was not written on: RabbitMQ 4 of other Debian releases, and LocalStack's SQS.

`make judges` installs them. Only tests whose outcome depends on the server run here.

What they found where servers differ, and who is right:

| what | moto, RabbitMQ 3.10 | the judge | right is |
|---|---|---|---|
| a message with a control character, such as escape | accepted | refused | the judge: [1]; the test was wrong |
| whom a request is from | one account | by the id of the key | as configured: [2]; each service has its account |
| a consumer timeout of a classic queue | ignored | 4.3: refused | the judge: [3]; the test was wrong |
| a message held beyond the consumer timeout | stays where it is | redelivered | the judge: [3]; 4.0 ended the worker |
| a queue neither durable nor exclusive | permitted | permitted | Amazon MQ, which refuses it from 4.3 on: [4] |

[1] https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
[2] https://docs.localstack.cloud/references/multi-account-setups/
[3] https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
[4] https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-43.html
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import urllib.request
from pathlib import Path
from unittest import mock

import pytest
from conftest import eventually, library_tests, need, rabbitmq_module
from test_library import modules, name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

JUDGES = Path(os.environ.get("JUDGES") or Path.home() / ".cache" / "cookiecutter-celery-aws").absolute()

RABBITMQ = {"broker": "rabbitmq", "results": "redis", "compute": "ec2", "queues": "urgent-mail+bulk"}
STANDARD = {"broker": "sqs-standard", "results": "redis"}
FIFO = {"broker": "sqs-fifo", "results": "redis"}

VERSIONS = {"rabbitmq-trixie": (4, 0), "rabbitmq-forky": (4, 3)}
"""What Debian's releases have at least; forky is not released yet, and may have a newer one."""

CASES = [
    ("rabbitmq-forky", RABBITMQ, ("faults",), ""),
    ("rabbitmq-forky", RABBITMQ, ("topology", "doctor", "dlq", "pausing"), "not thousands"),
    ("rabbitmq-forky", RABBITMQ, ("batching", "queues", "republisher", "beat_faults", "failures", "end_to_end"), ""),
    # 4.0 differs from 4.3 in how it counts.
    ("rabbitmq-trixie", RABBITMQ, ("faults",), "consumer_timeout or kills_its_worker or counted_together"),
    ("localstack", STANDARD, ("dlq",), "not thousand"),
    ("localstack", STANDARD, ("faults", "end_to_end"), ""),
    ("localstack", FIFO, ("order_in_groups", "failures", "end_to_end"), ""),
]
"""The judge, the service, the modules of tests, and which of their tests: speed is another matter."""


def folder_of(judge):
    """Return where a judge is installed; skip where it is not, unless it is required."""
    folder = JUDGES / judge
    why = ""
    if judge.startswith("rabbitmq") and os.geteuid() != 0:
        why = "only root can run a server of another Debian release"
    elif not any((folder / name).exists() for name in ("installed", "installed.txt")):
        why = f"no {judge} in {folder}: run `make judges`, or set JUDGES"
    if why and os.environ.get("JUDGES_REQUIRED"):
        pytest.fail(why, pytrace=False)
    if why:
        pytest.skip(why)
    return folder


@contextlib.contextmanager
def localstack(folder, state):
    """Run LocalStack with a folder for its files, and yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    variables = {
        "GATEWAY_LISTEN": address,
        "SERVICES": "sqs,sts",
        "SQS_ENDPOINT_STRATEGY": "off",  # Addresses of queues are those of the server, as with moto.
        "FILESYSTEM_ROOT": str(state),
        "LOCALSTACK_VOLUME_DIR": str(state),
        "DNS_ADDRESS": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "LS_LOG": "warn",
    }
    with (state / "output").open("wb") as output:
        server = subprocess.Popen(
            [folder / "bin" / "python", "-m", "localstack.runtime.main"],
            env={**os.environ, **variables},
            stdout=output,
            stderr=output,
        )
    try:
        assert eventually(lambda: answers(f"http://{address}/_localstack/health") or server.poll() is not None)
        assert server.poll() is None, (state / "output").read_text(encoding="utf-8")[-3000:]
        yield f"http://{address}"
    finally:
        server.kill()
        server.wait()


def answers(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200
    return False


@contextlib.contextmanager
def rabbitmq(judge, folder):
    """Run RabbitMQ of another release, and yield the environment variables that lead the library's tests to it."""
    path = os.pathsep.join((str(folder / "bin"), os.environ["PATH"]))
    module = rabbitmq_module()
    with mock.patch.dict(os.environ, PATH=path), module["server"]() as server:
        version = module["ask"](server.management, "GET", "overview")["rabbitmq_version"]
        known = tuple(map(int, version.split(".")[:2]))
        assert known >= VERSIONS[judge], f"{folder} has {version}: remove it, and run `make judges`"
        yield {"PATH": path, module["RUNNING"]: server.address}


@contextlib.contextmanager
def variables_of(judge, state):
    """Run a judge if it is to be run; yield the environment variables that lead the library's tests to it."""
    folder = folder_of(judge)
    if judge == "localstack":
        with localstack(folder, state) as url:
            yield {"AWS_EMULATOR_URL": url}
    else:
        with rabbitmq(judge, folder) as variables:
            yield variables


@pytest.mark.parametrize(
    ("judge", "service", "names", "chosen"),
    [pytest.param(*case, id="-".join((case[0], case[1]["broker"], case[2][0]))) for case in CASES],
)
def test_judge(judge, service, names, chosen, tmp_path):
    with variables_of(judge, tmp_path) as variables:
        run(service, names, "-k", chosen, **variables)


def test_cluster(tmp_path):
    """On RabbitMQ 4.3."""
    with variables_of("rabbitmq-forky", tmp_path) as variables:
        run(RABBITMQ, ("cluster",), **variables)


def run(service, names, *options, **variables):
    """Run modules of the library's tests, with options of pytest."""
    need("redis-server")
    found = {name(path): path for path in modules(service)}
    tests = library_tests(service, [found[each] for each in names], *options, **variables)
    assert tests.returncode == 0, tests.stdout[-8000:] + tests.stderr[-4000:]
