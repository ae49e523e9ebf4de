"""Pipelines, in projects and in the template: linted, pinned, with few rights; and what they run, run for real.

GitHub itself cannot be had here. So every step's shell is checked, and what it calls is run with a Terraform that
pretends, and with the real AWS command against a server that answers as AWS does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
import yaml
from conftest import BIN, TEMPLATE, need
from test_terraform import (
    SERVICE,
    blocks_of,
    clean_environment,
    run,
)

BAKES = {
    "ecs": {"compute": "ecs", "credentials": "role", "queues": "high, low"},
    "ec2": {"compute": "ec2", "credentials": "keys", "queues": "high, low", "results": "redis"},
}
YAMLLINT = """
extends: default
rules:
  line-length: {max: 120}
  document-start: disable
  truthy: {check-keys: false}
  comments: {min-spaces-from-content: 1}
"""

READ, VOUCH = {"contents": "read"}, {"contents": "read", "id-token": "write"}
RIGHTS = {
    ("ci.yml", "check"): READ,
    ("ci.yml", "test"): READ,
    ("ci.yml", "image"): READ,
    ("plan.yml", "plan"): VOUCH,
    ("deploy.yml", "checks"): READ,
    ("deploy.yml", "deploy"): VOUCH,
}
"""What each job of a project may do with GitHub's token, and no other."""


@pytest.fixture(params=[*BAKES, "template"])
def folder(request, bake):
    """What has pipelines: projects, and the template."""
    return TEMPLATE if request.param == "template" else bake(**BAKES[request.param])


@pytest.fixture(params=BAKES)
def project(request, bake, tmp_path):
    """A project that may be changed, as a git repository with a commit."""
    copy = shutil.copytree(bake(**BAKES[request.param]), tmp_path / "project")
    for environment in ("staging", "production"):  # As `make bootstrap` leaves it.
        (copy / "terraform" / "environments" / f"{environment}.s3.tfbackend").touch()
    commit(copy, "first")
    return copy


def commit(folder, message):
    git = ("git", "-c", "user.name=n", "-c", "user.email=e@example.com", "-C", folder)
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--allow-empty", "--message", message)):
        subprocess.run([*git, *command], check=True, capture_output=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def workflows(folder):
    found = {path.name: yaml.safe_load(path.read_text()) for path in (folder / ".github" / "workflows").iterdir()}
    assert found
    return found


def jobs(folder):
    return [(name, job, body) for name, flow in workflows(folder).items() for job, body in flow["jobs"].items()]


def steps(folder):
    return [(f"{name} {job}", step) for name, job, body in jobs(folder) for step in body.get("steps", [])]


def triggers(workflow):
    return workflow[True]  # YAML 1.1 takes the key `on` for true.


# What linters and rules of the house say.


def test_linters_find_nothing(folder):
    run(BIN / "zizmor", "--offline", "--no-progress", "--persona=auditor", ".github", cwd=folder)
    configurations = folder.glob("*.yaml")  # With those that begin with a dot, and compose.yaml.
    run(BIN / "yamllint", "--strict", "-d", YAMLLINT, ".github", *configurations, cwd=folder)
    files = [str(path) for path in (folder / ".github" / "workflows").iterdir()]
    for schema in ("vendor.github-workflows", "custom.github-workflows-require-timeout"):
        run(BIN / "check-jsonschema", "--builtin-schema", schema, *files, cwd=folder)
    if (folder / ".github" / "dependabot.yml").exists():
        run(BIN / "check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml", cwd=folder)


def test_shell_is_sound(folder, tmp_path):
    scripts = [*folder.glob("chassis/terraform/*.sh"), *folder.glob(".ci/run")]
    for number, (_, step) in enumerate(steps(folder)):
        if "run" in step:
            script = tmp_path / f"{number}.sh"
            script.write_text("#!/usr/bin/env bash\nset -eo pipefail\n" + step["run"] + "\n")
            scripts.append(script)
    assert scripts
    run(BIN / "shellcheck", *map(str, scripts), cwd=folder)


def test_nothing_that_others_write_gets_into_a_shell(folder):
    for where, step in steps(folder):
        assert "${{" not in step.get("run", ""), where
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False, where


def test_every_action_is_pinned_to_one_commit(folder):
    pins = {}
    for path in (folder / ".github" / "workflows").iterdir():
        for used in re.findall(r"uses: (.*?)(?: # zizmor: .*)?$", path.read_text(), re.MULTILINE):
            if used.startswith("./"):
                assert (folder / used).is_file()
                continue
            found = re.fullmatch(r"([\w./-]+)@([0-9a-f]{40}) # (v[0-9]+\.[0-9]+\.[0-9]+)", used)
            assert found, f"{path.name}: {used}"
            pins.setdefault(found[1], set()).add(found.groups()[1:])
    assert pins
    assert {action: pin for action, pin in pins.items() if len(pin) > 1} == {}


def test_every_make_target_is_there(folder):
    makefile = folder / "Makefile" if folder == TEMPLATE else folder / "chassis" / "make.mk"
    known = set(re.findall(r"^([a-z-]+):(?! export)", makefile.read_text(), re.MULTILINE))
    called = {target for _, step in steps(folder) for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert called
    assert called <= known


def test_jobs_have_the_rights_they_need_and_no_more(bake):
    folder = bake(**BAKES["ecs"])
    assert {(name, job): body["permissions"] for name, job, body in jobs(folder)} == RIGHTS
    assert {name: flow["permissions"] for name, flow in workflows(folder).items()} == {name: {} for name, _ in RIGHTS}
    # Only who may vouch for itself gets a role of AWS, and nobody gets a secret.
    for name, job, body in jobs(folder):
        has_role = "configure-aws-credentials" in str(body)
        assert has_role == (body["permissions"] == VOUCH), (name, job)
        assert "secrets" not in str(body)


def test_deployments_follow_checks_and_are_never_cancelled(bake):
    folder = bake(**BAKES["ecs"])
    flows = workflows(folder)
    assert set(triggers(flows["ci.yml"])) == {"pull_request", "workflow_call", "schedule"}
    assert set(triggers(flows["plan.yml"])) == {"pull_request"}
    assert triggers(flows["deploy.yml"])["push"] == {"branches": ["main"], "tags": ["v*"]}
    deploy, checks = flows["deploy.yml"]["jobs"]["deploy"], flows["deploy.yml"]["jobs"]["checks"]
    assert (deploy["needs"], checks["uses"]) == ("checks", "./.github/workflows/ci.yml")
    assert "!failure() && !cancelled()" in deploy["if"]
    assert "concurrency" not in flows["deploy.yml"]
    assert deploy["concurrency"] == {"group": f"deploy-{deploy['environment']}", "cancel-in-progress": False}
    assert deploy["env"]["ENV"] == deploy["environment"]
    environments = {path.stem for path in (folder / "terraform" / "environments").glob("*.tfvars")}
    assert set(triggers(flows["deploy.yml"])["workflow_dispatch"]["inputs"]["environment"]["options"]) == environments
    assert "head.repo.full_name == github.repository" in flows["plan.yml"]["jobs"]["plan"]["if"]
    # The token of a role lasts as long as the job may.
    (lent,) = (step["with"] for step in deploy["steps"] if "configure-aws-credentials" in step.get("uses", ""))
    seconds = lent["role-duration-seconds"]
    assert deploy["timeout-minutes"] * 60 <= seconds
    pipeline = folder / "chassis" / "terraform" / "pipeline" / "main.tf"
    assert f"max_session_duration = {seconds}\n" in pipeline.read_text()


def test_pipelines_run_what_they_are_for(bake):
    folder = bake(**BAKES["ecs"])
    ran = {
        (name, job): [step.get("run", step.get("uses", "").partition("@")[0]).strip() for step in body.get("steps", [])]
        for name, job, body in jobs(folder)
    }
    build, load = (line for line in ran["ci.yml", "image"] if line.startswith("docker "))
    assert build == "docker buildx build --platform linux/amd64,linux/arm64 ."
    # What runs, and so can be loaded, is the runner's kind; the other is of the same packages.
    assert load == "docker buildx build --platform linux/amd64 --load --tag scanned ."
    assert ran["ci.yml", "image"][-1] == "anchore/scan-action"
    assert "make check" in ran["ci.yml", "check"]
    assert {"make test", "hashicorp/setup-terraform"} <= set(ran["ci.yml", "test"])
    assert "make plan ENV=staging" in ran["plan.yml", "plan"]
    assert ran["deploy.yml", "deploy"][-2:] == ["make push", "make deploy"]


def test_dependabot_looks_at_everything_that_is_pinned(bake):
    folder = bake(**BAKES["ecs"])
    updates = yaml.safe_load((folder / ".github" / "dependabot.yml").read_text())["updates"]
    looked_at = {update["package-ecosystem"]: update for update in updates}
    assert set(looked_at) == {"pip", "github-actions", "docker", "terraform"}
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)
    # What is in chassis/ comes with the chassis.
    assert {path.parent for path in folder.glob("[!c]*/**/*.tf")} == {folder / "terraform"}
    assert looked_at["terraform"]["directory"] == "/terraform"


# Hooks before a commit.

# Not among the requirements: one test needs it, and what it would bring with it.
PRE_COMMIT = (sys.executable, "-m", "uv", "tool", "run", "--quiet", "--from", "pre-commit==4.7.0", "pre-commit")


@pytest.mark.slow
@pytest.mark.parametrize("project", ["ecs"], indirect=True)
def test_pre_commit_takes_the_hooks_as_they_are(project, tmp_path):
    need("terraform")
    if not os.environ.get("CI") and subprocess.run([*PRE_COMMIT, "--version"], capture_output=True).returncode:
        pytest.skip("pre-commit cannot be had on this machine just now")
    (project / ".venv").symlink_to(BIN.parent)
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "pre-commit")}

    def pre_commit(*words):
        command = [*PRE_COMMIT, *words]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)

    valid = pre_commit("validate-config")
    assert (valid.returncode, valid.stdout + valid.stderr) == (0, "")
    ran = pre_commit("run", "--all-files")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    hooks = yaml.safe_load((project / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [line.partition("...")[0] for line in ran.stdout.splitlines() if line.endswith("Passed")] == [
        hook["name"] for hook in hooks
    ]


def test_hooks_before_a_commit_pass_and_find_what_is_wrong(project):
    hooks = yaml.safe_load((project / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert len({hook["id"] for hook in hooks}) == len(hooks)
    (project / ".venv").symlink_to(BIN.parent)
    python, terraform = project / "chassis/celery_aws/app.py", project / SERVICE / "queues_sqs.tf"
    keys = [re.compile(hook["entry"]) for hook in hooks if hook["language"] == "pygrep"]

    def passes(hook, *files):
        files = () if hook.get("pass_filenames") is False else files
        done = subprocess.run([*hook["entry"].split(), *files], cwd=project, capture_output=True, text=True)
        return done.returncode == 0

    for hook in hooks:
        if hook["language"] == "system" and hook["id"] != "mypy":  # Types take long, and are checked elsewhere.
            if hook["entry"].startswith("terraform"):
                need("terraform")
            file = terraform if "terraform" in hook["id"] else python
            assert passes(hook, file), hook["id"]
            broken = {python: "import os\nx = [ 1]\n", terraform: "locals {\na=1\n}\n"}[file]
            if hook["id"] == "contract":
                file, broken = project / "contract.json", "{}\n"
            before = file.read_text()
            file.write_text(broken)
            assert not passes(hook, file), hook["id"]
            file.write_text(before)
    (key,) = keys
    tracked = subprocess.run(["git", "ls-files"], cwd=project, capture_output=True, text=True, check=True).stdout
    assert ".env.example" in tracked.splitlines()
    for name in tracked.splitlines():
        assert not key.search((project / name).read_text(encoding="utf-8")), name
    assert key.search("id = " + "AKIA" + "IOSFODNN7EXAMPLE")
    assert key.search("-----BEGIN RSA " + "PRIVATE KEY-----")


# What the pipelines run.

TERRAFORM = """#!/usr/bin/env python3
import json, os, pathlib, sys
words = [word for word in sys.argv[1:] if not word.startswith("-chdir")]
here = pathlib.Path(os.environ["PRETENDED"])
state = here / "state"
with (here / "calls").open("a") as calls:
    print(" ".join(words), file=calls)
if words[0] == "output":
    if (here / "unreachable").exists():
        sys.exit("cannot reach the state")
    print(json.dumps({"image_tag": {"value": state.read_text()}} if state.exists() else {}))
elif words[0] == "console":
    print("Acquiring state lock. This may take a few moments...")
    print(os.environ["CONSOLE"])
    print("Releasing state lock. This may take a few moments...")
elif words[0] == "plan":
    (tag,) = (word.removeprefix("-var=image_tag=") for word in words if word.startswith("-var=image_tag="))
    (here / "planned").write_text(tag)
elif words[0] == "apply":
    tag = (here / "planned").read_text()
    if tag != os.environ.get("CANNOT_APPLY"):
        state.write_text(tag)
    sys.exit(tag == os.environ.get("CANNOT_APPLY"))
"""
DOCKER = """#!/bin/sh
case "$*" in
"buildx imagetools --help") echo "$HELP_OF_IMAGETOOLS"; exit ;;
login*) cat >/dev/null ;;
esac
echo "$@" >>"$PRETENDED/docker-calls"
"""
DOCKER_HELP = "Usage:  docker buildx imagetools [OPTIONS] COMMAND"
PODMAN_HELP = "Usage:\n  podman buildx [command]"


ABANDONED = "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token a was abandoned"


def xml(action, name, members):
    """Return an answer of EC2 Auto Scaling with a list."""
    result = f"<{name}>{members}</{name}>" if name else ""
    return f"<{action}Response><{action}Result>{result}</{action}Result></{action}Response>"


class Aws:
    """Answers the AWS command: what runs is what was applied, except where that does not start."""

    def __init__(self, folder):
        self.state, self.dead, self.images, self.patience = folder / "state", set(), {}, 1
        self.workers = 1  # of each ECS service, and instances of each Auto Scaling group
        self.trials = {}
        aws = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                target = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                if target:
                    status, answer = aws.answer(target, json.loads(body))
                    answer = json.dumps(answer)
                else:
                    query = parse_qs(body)
                    status, answer = 200, aws.answer(query["Action"][0], query)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, action, asked):
        """Call `describe_services` for DescribeServices, and so on."""
        return getattr(self, re.sub(r"(?<!^)([A-Z])", r"_\1", action).lower())(asked)

    def applied(self):
        return self.state.read_text()

    def still_waiting(self):
        self.patience -= 1
        return self.patience >= 0

    def describe_services(self, asked):
        assert (asked["cluster"], len(asked["services"])) == ("acme-jobs-staging", 1)
        # A deployment without workers completes at once, also that of an image that does not run.
        fails = self.workers and self.applied() in self.dead
        image = "before" if fails and not self.still_waiting() else self.applied()
        state = "IN_PROGRESS" if self.workers and self.still_waiting() else "COMPLETED"
        others = {"status": "ACTIVE", "taskDefinition": "arn:td/other", "rolloutState": "FAILED"}
        primary = {
            "status": "PRIMARY",
            "taskDefinition": f"arn:td/{image}",
            "runningCount": self.workers,
            "rolloutState": state,
            "rolloutStateReason": "because of that",
        }
        network = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}}
        return 200, {"services": [{"deployments": [others, primary], "networkConfiguration": network}]}

    def run_task(self, asked):
        assert asked["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == ["subnet-1"]
        assert asked["taskDefinition"] == f"arn:td/{self.applied()}"
        task = f"arn:task/{len(self.trials)}"
        self.trials[task] = "running"
        return 200, {"tasks": [{"taskArn": task}], "failures": []}

    def describe_tasks(self, asked):
        (task,) = asked["tasks"]
        assert self.trials[task] == "running"
        if self.still_waiting():
            status, health = "PROVISIONING", "UNKNOWN"
        elif self.applied() in self.dead:
            status, health = "STOPPED", "UNKNOWN"
        else:
            status, health = "RUNNING", "HEALTHY"
        containers = [{"name": "sidecar", "healthStatus": "UNKNOWN"}, {"name": "worker", "healthStatus": health}]
        about = {"lastStatus": status, "stoppedReason": "because of that", "containers": containers}
        return 200, {"tasks": [{"taskArn": task, **about}]}

    def stop_task(self, asked):
        self.trials[asked["task"]] = "stopped"
        return 200, {"task": {}}

    def describe_task_definition(self, asked):
        image = f"1.dkr.ecr/acme-jobs-staging:{asked['taskDefinition'].rpartition('/')[2]}"
        return 200, {"taskDefinition": {"containerDefinitions": [{"image": image}]}}

    def describe_instance_refreshes(self, asked):
        assert asked["AutoScalingGroupName"][0].startswith("acme-jobs-staging-")
        state = "InProgress" if self.workers and self.still_waiting() else "Successful"
        refreshes = "".join(
            f"<member><Status>{each}</Status><StartTime>2026-01-02T00:00:00Z</StartTime>"
            "<StatusReason>because of that</StatusReason></member>"
            for each in ("InProgress" if self.workers and self.applied() in self.dead else state, "Cancelled")
        )
        return xml("DescribeInstanceRefreshes", "InstanceRefreshes", refreshes if self.applied() != "first" else "")

    def describe_scaling_activities(self, asked):
        """Tell of an instance whose worker did not become ready, of one long ago, and of another failure."""
        failed = self.applied() in self.dead and not self.still_waiting()
        newest = datetime.now(timezone.utc) + timedelta(hours=1)
        told = [("2026-01-03T00:00:00Z", "Could not launch Spot Instances"), ("2026-01-01T00:00:00Z", ABANDONED)]
        if failed:
            told.insert(0, (newest.strftime("%Y-%m-%dT%H:%M:%SZ"), f"{ABANDONED} because of that"))
        members = "".join(
            f"<member><ActivityId>1</ActivityId><AutoScalingGroupName>a</AutoScalingGroupName><Cause>c</Cause>"
            f"<StartTime>{start}</StartTime><StatusCode>Cancelled</StatusCode>"
            f"<StatusMessage>{message}</StatusMessage></member>"
            for start, message in told
        )
        return xml("DescribeScalingActivities", "Activities", members)

    def describe_auto_scaling_groups(self, asked):
        (name,) = (values[0] for key, values in asked.items() if key.startswith("AutoScalingGroupNames"))
        desired = self.trials.get(name, self.workers)
        ready = 0 if self.applied() in self.dead or (desired and self.still_waiting()) else desired
        instance = "<member><InstanceId>i-1</InstanceId><LifecycleState>{}</LifecycleState></member>"
        instances = instance.format("Pending:Wait") * (desired - ready) + instance.format("InService") * ready
        group = f"<DesiredCapacity>{desired}</DesiredCapacity><Instances>{instances}</Instances>"
        return xml("DescribeAutoScalingGroups", "AutoScalingGroups", f"<member>{group}</member>")

    def set_desired_capacity(self, asked):
        self.trials[asked["AutoScalingGroupName"][0]] = int(asked["DesiredCapacity"][0])
        return xml("SetDesiredCapacity", "", "")

    def describe_images(self, asked):
        if asked["imageIds"][0]["imageTag"] in self.images.get(asked["repositoryName"], ()):
            return 200, {"imageDetails": [{}]}
        return 400, {"__type": "ImageNotFoundException", "message": "no"}

    def describe_repositories(self, asked):
        return 200, {"repositories": [{"repositoryUri": f"1.dkr.ecr/{asked['repositoryNames'][0]}"}]}

    def get_authorization_token(self, asked):
        return 200, {"authorizationData": [{"authorizationToken": "QVdTOng=", "proxyEndpoint": "https://1.dkr.ecr"}]}


@pytest.fixture
def pretended(project, tmp_path):
    """Run make in a project, with a Terraform and a Docker that pretend, and the AWS command led to a server."""
    need("make")
    folder = tmp_path / "pretended"
    folder.mkdir()
    for name, text in {"terraform": TERRAFORM, "docker": DOCKER}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "aws").symlink_to(BIN / "aws")
    aws = Aws(folder)

    def make(*words, **variables):
        return subprocess.run(
            ["make", "--no-print-directory", *words],
            cwd=project,
            env=clean_environment(
                PATH=f"{folder}{os.pathsep}{os.environ['PATH']}",
                MAKEFLAGS="",
                PRETENDED=str(folder),
                PAUSE_SECONDS="0",
                HELP_OF_IMAGETOOLS=variables.pop("HELP_OF_IMAGETOOLS", DOCKER_HELP),
                AWS_ENDPOINT_URL=f"http://127.0.0.1:{aws.server.server_port}",
                AWS_ACCESS_KEY_ID="x",
                AWS_SECRET_ACCESS_KEY="x",
                **variables,
            ),
            capture_output=True,
            text=True,
        )

    make.folder, make.aws, make.project = folder, aws, project
    yield make
    aws.server.shutdown()


def test_deployment_waits_until_all_workers_run_the_image(pretended):
    done = pretended("deploy", "TAG=first")
    assert done.returncode == 0, done.stdout + done.stderr
    pretended.aws.patience = 2
    done = pretended("deploy", "TAG=second")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "staging: from first to second" in done.stdout
    assert pretended.aws.patience < 0
    assert all(re.search(rf"^{queue}: .*second", done.stdout, re.MULTILINE) for queue in ("high", "low"))
    assert pretended.aws.applied() == "second"


def test_image_that_does_not_run_is_taken_back(pretended):
    pretended.aws.state.write_text("before")
    pretended.aws.dead.add("bad")
    done = pretended("deploy", "TAG=bad")
    assert done.returncode != 0
    assert "because of that" in done.stderr
    assert "bad does not run; rolling back to before" in done.stderr
    assert pretended.aws.applied() == "before"


def test_worker_when_it_sleeps_then_one_is_run_and_stopped_again(pretended):
    pretended.aws.workers = 0
    done = pretended("deploy", "TAG=first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(re.search(rf"^{queue}: can run first", done.stdout, re.MULTILINE) for queue in ("high", "low"))
    assert len(pretended.aws.trials) == 2
    assert set(pretended.aws.trials.values()) <= {"stopped", 0}


def test_image_when_workers_sleep_and_it_does_not_run_then_is_taken_back(pretended):
    pretended.aws.workers = 0
    pretended.aws.state.write_text("before")
    pretended.aws.dead.add("bad")
    done = pretended("deploy", "TAG=bad")
    assert done.returncode != 0
    assert "because of that" in done.stderr
    assert "bad does not run; rolling back to before" in done.stderr
    assert pretended.aws.applied() == "before"
    assert set(pretended.aws.trials.values()) <= {"stopped", 0}


def test_deployment_when_it_takes_longer_than_the_contract_allows_then_has_failed(pretended):
    """It is the contract's longest task, its stop timeout and a margin; see `Contract.deployment_seconds`."""
    contract = pretended.project / "contract.json"
    service = json.loads(contract.read_text(encoding="utf-8"))
    script = next((pretended.project / "chassis" / "terraform").glob("rollout_*.sh"))
    script.write_text('#!/bin/sh\necho "waits $2"\n', encoding="utf-8")
    waits = int(pretended("rollout", "TAG=a").stdout.split("waits ")[1])
    assert waits > service["queue_defaults"]["hard_limit_seconds"] + service["stop_timeout_seconds"]
    service["queues"][1].update(hard_limit_seconds=5000, soft_limit_seconds=4900, visibility_timeout_seconds=43_200)
    contract.write_text(json.dumps(service), encoding="utf-8")
    later = int(pretended("rollout", "TAG=a").stdout.split("waits ")[1])
    assert later - waits == 5000 - service["queue_defaults"]["hard_limit_seconds"]


def test_image_that_cannot_be_applied_is_taken_back(pretended):
    pretended.aws.state.write_text("before")
    done = pretended("deploy", "TAG=bad", CANNOT_APPLY="bad")
    assert done.returncode != 0
    assert "rolled back to before" in done.stderr
    assert pretended.aws.applied() == "before"


def test_first_image_that_does_not_run_is_told_so(pretended):
    pretended.aws.dead.add("bad")
    done = pretended("deploy", "TAG=bad")
    assert done.returncode != 0
    assert "no previous image to roll back to" in done.stderr
    assert pretended.aws.applied() == ""
    assert pretended("deployed").stdout == "\n"


def test_plan_keeps_the_image_that_is_deployed(pretended):
    assert pretended("plan").returncode == 0
    assert (pretended.folder / "planned").read_text() == ""
    assert pretended("plan", "apply", "TAG=first").returncode == 0
    assert pretended("deployed").stdout == "first\n"
    (pretended.folder / "planned").unlink()
    assert pretended("plan").returncode == 0
    assert (pretended.folder / "planned").read_text() == "first"


def test_plan_does_not_take_an_unreachable_state_for_an_empty_one(pretended):
    (pretended.folder / "unreachable").touch()
    assert pretended("plan").returncode != 0
    assert not (pretended.folder / "planned").exists()
    assert pretended("deploy", "TAG=first").returncode != 0
    assert not (pretended.folder / "planned").exists()


def test_destroy_when_the_lock_is_waited_for_then_reads_protect_data(pretended):
    assert "there is nothing to destroy" in pretended("destroy", CONSOLE="false").stdout
    done = pretended("destroy", CONSOLE="true")
    assert done.returncode != 0
    assert "protect_data is true" in done.stderr


ONE_PROJECT = pytest.mark.parametrize("project", ["ecs"], indirect=True)
LOGIN = "login --username AWS --password-stdin 1.dkr.ecr"


def image(environment, tag):
    return f"1.dkr.ecr/acme-jobs-{environment}:{tag}"


def docker_calls(pretended):
    """Return what Docker was called with since the last time, without the login."""
    path = pretended.folder / "docker-calls"
    login, *calls = path.read_text().splitlines() if path.exists() else [LOGIN]
    path.unlink(missing_ok=True)
    assert login == LOGIN
    return calls


def set_architecture(project, environment, architecture):
    values = project / "terraform" / "environments" / f"{environment}.tfvars"
    values.write_text(f'{values.read_text()}\narchitecture = "{architecture}"\n')


@ONE_PROJECT
def test_push_when_the_image_is_missing_then_builds_one_platform(pretended):
    tag = commit(pretended.project, "second")
    done = pretended("push")
    assert done.returncode == 0, done.stdout + done.stderr
    staging = image("staging", tag)
    assert docker_calls(pretended) == [f"build --platform linux/arm64 --tag {staging} .", f"push {staging}"]

    pretended.aws.images["acme-jobs-staging"] = {tag}
    assert "already exists" in pretended("push").stdout
    assert docker_calls(pretended) == []


@ONE_PROJECT
@pytest.mark.parametrize(
    ("architectures", "platforms"),
    [
        ({"staging": "X86_64", "production": "X86_64"}, "linux/amd64"),
        ({"staging": "X86_64"}, "linux/amd64,linux/arm64"),
        ({"production": "X86_64"}, "linux/amd64,linux/arm64"),
    ],
)
def test_push_when_environments_differ_then_builds_for_all(pretended, architectures, platforms):
    for environment, architecture in architectures.items():
        set_architecture(pretended.project, environment, architecture)
    commit(pretended.project, "second")
    assert pretended("push").returncode == 0
    build = docker_calls(pretended)[0]
    assert f"build --platform {platforms} --tag" in build
    assert build.startswith("buildx ") == ("," in platforms)


@ONE_PROJECT
def test_push_when_the_default_architecture_changes_then_follows_it(pretended):
    variables = pretended.project / "terraform" / "variables.tf"
    variables.write_text(variables.read_text().replace('= "ARM64"', '= "X86_64"'))
    commit(pretended.project, "second")
    assert pretended("push").returncode == 0
    assert "--platform linux/amd64 " in docker_calls(pretended)[0]


@ONE_PROJECT
def test_push_when_platforms_are_given_then_builds_those(pretended):
    assert pretended("push", "PLATFORMS=linux/amd64").returncode == 0
    assert "--platform linux/amd64 " in docker_calls(pretended)[0]


@ONE_PROJECT
def test_push_when_the_architecture_is_unknown_then_names_the_file(pretended):
    set_architecture(pretended.project, "production", "RISC")
    commit(pretended.project, "second")
    done = pretended("push")
    assert done.returncode != 0
    assert "environments/production.tfvars" in done.stderr
    assert docker_calls(pretended) == []


@ONE_PROJECT
@pytest.mark.parametrize("help_of_imagetools", [DOCKER_HELP, PODMAN_HELP], ids=["docker", "podman"])
def test_push_when_staging_has_the_image_then_copies_it(pretended, help_of_imagetools):
    tag = commit(pretended.project, "second")
    pretended.aws.images["acme-jobs-staging"] = {tag}
    done = pretended("push", ENV="production", HELP_OF_IMAGETOOLS=help_of_imagetools)
    assert done.returncode == 0, done.stdout + done.stderr
    source, target = image("staging", tag), image("production", tag)
    assert (
        docker_calls(pretended)
        == {
            DOCKER_HELP: [f"buildx imagetools create --tag {target} {source}"],
            PODMAN_HELP: [f"pull --platform linux/arm64 {source}", f"tag {source} {target}", f"push {target}"],
        }[help_of_imagetools]
    )


@ONE_PROJECT
def test_push_when_podman_cannot_copy_all_platforms_then_fails(pretended):
    tag = commit(pretended.project, "second")
    pretended.aws.images["acme-jobs-staging"] = {tag}
    platforms = {"PLATFORMS": "linux/amd64,linux/arm64", "HELP_OF_IMAGETOOLS": PODMAN_HELP}
    done = pretended("push", ENV="production", **platforms)
    assert done.returncode != 0
    assert "requires Docker with Buildx" in done.stderr
    assert docker_calls(pretended) == []


@ONE_PROJECT
def test_push_when_the_tag_is_not_checked_out_then_builds_nothing(pretended):
    done = pretended("push", "TAG=other")
    assert done.returncode != 0
    assert "other is not checked out" in done.stderr
    assert docker_calls(pretended) == []


def edit(project):
    (project / "Makefile").open("a").write("\n")


def add_module(project):
    (project / "src" / "acme_jobs" / "untracked.py").touch()


@ONE_PROJECT
@pytest.mark.parametrize("change", [edit, add_module])
@pytest.mark.parametrize("target", ["push", "deploy"])
def test_push_when_changes_are_uncommitted_then_refuses(pretended, change, target):
    tag = commit(pretended.project, "second")
    pretended.aws.images["acme-jobs-staging"] = {tag, f"{tag}-dirty"}
    change(pretended.project)
    done = pretended(target)
    assert done.returncode != 0
    assert "uncommitted changes" in done.stderr
    # An image that exists can be deployed all the same, but none is built with a commit's tag.
    assert pretended("push", f"TAG={tag}").returncode == 0
    pretended.aws.images.clear()
    assert pretended("push", f"TAG={tag}").returncode != 0
    assert docker_calls(pretended) == []
    assert not (pretended.folder / "planned").exists()


@ONE_PROJECT
@pytest.mark.parametrize("target", ["push", "deploy"])
def test_push_when_outside_git_then_refuses(pretended, target):
    shutil.rmtree(pretended.project / ".git")
    done = pretended(target, GIT_CEILING_DIRECTORIES=str(pretended.project.parent))
    assert done.returncode != 0
    assert "TAG=..." in done.stderr
    assert docker_calls(pretended) == []
    assert not (pretended.folder / "planned").exists()


def test_only_an_earlier_commit_of_the_branch_is_gone_back_to(project):
    (script,) = (step["run"] for _, step in steps(project) if "merge-base" in step.get("run", ""))
    git = ["git", "-C", str(project)]
    first = commit(project, "first")
    newest = commit(project, "second")
    subprocess.run([*git, "checkout", "--quiet", "--detach", first], check=True)
    elsewhere = commit(project, "never merged")
    subprocess.run([*git, "checkout", "--quiet", "--detach", newest], check=True)

    def go_back(name):
        command = ["bash", "-eo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=project, env={**os.environ, "COMMIT": name}, capture_output=True).returncode

    def head():
        return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()

    for wrong in (elsewhere, "--help", "nothing", "", "$(exit 0)"):
        assert go_back(wrong) != 0, wrong
        assert head() == newest
    assert go_back(first[:12]) == 0
    assert head() == first


@ONE_PROJECT
def test_workflows_when_moved_as_documented_then_run_in_the_folder(project, tmp_path):
    root = tmp_path / "monorepo"
    folder = shutil.copytree(project, root / "services" / "acme-jobs", ignore=shutil.ignore_patterns(".git"))
    move, *_ = blocks_of(folder, "A folder of a larger repository", page="setups")
    before = workflows(folder)
    run("bash", "-euo", "pipefail", "-c", move, cwd=root)
    moved = workflows(root)
    assert moved.keys() == {f"acme-jobs-{name}" for name in before}
    for name, flow in moved.items():
        assert flow["defaults"] == {"run": {"working-directory": "services/acme-jobs"}}, name
        assert flow["name"].startswith("acme-jobs "), name
        for event in ("pull_request", "push"):
            if event in triggers(flow):
                assert "services/acme-jobs/**" in triggers(flow)[event]["paths"], (name, event)
        assert "group: acme-jobs-" in (root / ".github" / "workflows" / name).read_text()
    assert moved["acme-jobs-deploy.yml"]["jobs"]["checks"]["uses"] == "./.github/workflows/acme-jobs-ci.yml"
    assert triggers(moved["acme-jobs-deploy.yml"])["push"]["tags"] == ["acme-jobs-v*"]
    run(BIN / "zizmor", "--offline", "--no-progress", "--persona=auditor", ".github", cwd=root)
    files = [str(path) for path in (root / ".github" / "workflows").iterdir()]
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files, cwd=root)
