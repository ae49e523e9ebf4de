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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
import yaml
from conftest import BIN, CHOICES, TEMPLATE, label, need
from test_terraform import EMULATED, SERVICE, Deployment, clean_environment, emulator, run

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
        for used in re.findall(r"uses: (.*)", path.read_text()):
            if used.startswith("$/"):
                assert (folder / used.removeprefix("$/")).is_file()
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
    assert (deploy["needs"], checks["uses"]) == ("checks", "$/.github/workflows/ci.yml")
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
cat >/dev/null
echo "$@" >>"$PRETENDED/docker-calls"
"""


class Aws:
    """Answers the AWS command: what runs is what was applied, except where that does not start."""

    def __init__(self, folder):
        self.state, self.dead, self.images, self.patience = folder / "state", set(), {}, 1
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
        image = "before" if self.applied() in self.dead and not self.still_waiting() else self.applied()
        state = "IN_PROGRESS" if self.still_waiting() else "COMPLETED"
        others = {"status": "ACTIVE", "taskDefinition": "arn:td/other", "rolloutState": "FAILED"}
        primary = {"status": "PRIMARY", "taskDefinition": f"arn:td/{image}", "rolloutState": state}
        return 200, {"services": [{"deployments": [others, {**primary, "rolloutStateReason": "because of that"}]}]}

    def describe_task_definition(self, asked):
        image = f"1.dkr.ecr/acme-jobs-staging:{asked['taskDefinition'].rpartition('/')[2]}"
        return 200, {"taskDefinition": {"containerDefinitions": [{"image": image}]}}

    def describe_instance_refreshes(self, asked):
        assert asked["AutoScalingGroupName"][0].startswith("acme-jobs-staging-")
        state = "InProgress" if self.still_waiting() else "Failed" if self.applied() in self.dead else "Successful"
        refreshes = "".join(
            f"<member><Status>{each}</Status><StatusReason>because of that</StatusReason></member>"
            for each in (state, "Cancelled")
        )
        result = f"<InstanceRefreshes>{refreshes}</InstanceRefreshes>" if self.applied() != "first" else ""
        return (
            "<DescribeInstanceRefreshesResponse><DescribeInstanceRefreshesResult>"
            f"{result}</DescribeInstanceRefreshesResult></DescribeInstanceRefreshesResponse>"
        )

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
    assert pretended("deploy", "TAG=before").returncode == 0
    pretended.aws.dead.add("bad")
    done = pretended("deploy", "TAG=bad")
    assert done.returncode != 0
    assert "because of that" in done.stderr
    assert "bad does not run; rolling back to before" in done.stderr
    assert pretended.aws.applied() == "before"


def test_image_that_cannot_be_applied_is_taken_back(pretended):
    assert pretended("deploy", "TAG=before").returncode == 0
    done = pretended("deploy", "TAG=bad", CANNOT_APPLY="bad")
    assert done.returncode != 0
    assert "rolled back to before" in done.stderr
    assert pretended.aws.applied() == "before"


def test_first_image_that_does_not_run_is_told_so(pretended):
    pretended.aws.dead.add("bad")
    done = pretended("deploy", "TAG=bad")
    assert done.returncode != 0
    assert "no previous image to roll back to" in done.stderr


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


def test_image_is_pushed_once_and_copied_to_production(pretended):
    calls = pretended.folder / "docker-calls"
    tag = commit(pretended.project, "second")
    login = "login --username AWS --password-stdin 1.dkr.ecr"
    done = pretended("push")
    assert done.returncode == 0, done.stdout + done.stderr
    build = f"buildx build --platform linux/amd64,linux/arm64 --tag 1.dkr.ecr/acme-jobs-staging:{tag} --push ."
    assert calls.read_text().splitlines() == [login, build]
    calls.unlink()

    pretended.aws.images["acme-jobs-staging"] = {tag}
    assert "already exists" in pretended("push").stdout
    assert not calls.exists()

    assert pretended("push", ENV="production").returncode == 0
    names = [f"1.dkr.ecr/acme-jobs-{environment}:{tag}" for environment in ("production", "staging")]
    assert calls.read_text().splitlines() == [login, f"buildx imagetools create --tag {names[0]} {names[1]}"]
    calls.unlink()

    # Another commit than the one that is checked out is not built from that.
    done = pretended("push", "TAG=other")
    assert done.returncode != 0
    assert "other is not checked out" in done.stderr
    assert "build" not in calls.read_text()

    # Nor is what nobody has committed called by a commit's name.
    (pretended.project / "Makefile").open("a").write("\n")
    assert pretended("push").returncode == 0
    assert f"acme-jobs-staging:{tag}-dirty" in calls.read_text()


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


# What the pipelines' roles may do.


def knows_names(statement):
    """Tell whether the emulator decides by a resource's name; mostly it does by the action alone."""
    actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    return all(action.startswith(("s3:", "sqs:", "dynamodb:")) for action in actions)


def unnamed(statement):
    """Return a statement without names and conditions, of which the emulator knows none."""
    return {"Effect": "Allow", "Action": statement["Action"], "Resource": "*"}


class Pipeline(Deployment):
    """A deployment by the roles of GitHub's jobs; names that the emulator does not know are compared with the state."""

    def __init__(self, folder, aws):
        super().__init__(folder, aws, kept_in_bucket=True)
        (folder / "chassis" / "terraform" / "pipeline" / "test_override.tf").write_text(EMULATED)
        aws.client("iam").create_open_id_connect_provider(
            Url="https://token.actions.githubusercontent.com", ClientIDList=["sts.amazonaws.com"]
        )
        self.make("pipeline", REPOSITORY="acme@1/jobs@2", TF_CLI_ARGS_apply="-auto-approve")
        self.aws, self.policies, self.roles = aws, {}, {}
        for name in ("plan", "deploy"):
            role = f"acme-jobs-staging-{name}"
            iam = aws.client("iam")
            policy = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            self.policies[name] = policy["Statement"]
            loose = [each if knows_names(each) else unnamed(each) for each in policy["Statement"]]
            if "secretsmanager:ListSecretVersionIds" in str(policy):
                # Of the provider, also a version may be at hand that reads a secret to know its versions.
                loose.append({"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"})
            iam.put_role_policy(
                RoleName=role, PolicyName=name, PolicyDocument=json.dumps({**policy, "Statement": loose})
            )
            self.roles[name] = aws.assume(iam.get_role(RoleName=role)["Role"]["Arn"])

    def become(self, name):
        self.environment = clean_environment(**self.aws.environment(self.roles[name]))

    def foreign(self):
        """Return the ARNs in the state that no statement of the deployment's policy names.

        Scaling policies are authorised by what they scale.
        """
        (module,) = json.loads(self.run("show", "-json"))["values"]["root_module"]["child_modules"]
        state = module["resources"]
        arns = {resource["values"].get("arn") for resource in state if resource["mode"] == "managed"} - {None}
        named = []
        for statement in self.policies["deploy"]:
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            named += [re.escape(resource).replace(r"\*", ".*") for resource in resources if resource != "*"]
        assert len(arns) > 10
        return {
            arn
            for arn in arns
            if ":scalingPolicy:" not in arn and not any(re.fullmatch(pattern, arn) for pattern in named)
        }


# Together they hold every option that needs a right of its own.
NEEDY = [
    {"broker": "sqs-standard", "results": "s3", "credentials": "role", "compute": "ecs"},
    {"broker": "sqs-fifo", "results": "redis", "credentials": "keys", "compute": "ec2"},
    {"broker": "rabbitmq", "results": "dynamodb", "credentials": "keys", "compute": "ecs"},
]


def test_needy_ones_hold_every_option():
    every = {(choice, option) for choice, options in CHOICES.items() for option in options}
    assert {(choice, answers[choice]) for answers in NEEDY for choice in CHOICES} == every - {("results", "none")}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("answers", NEEDY, ids=label)
def test_terraform_lets_roles_do_what_their_pipelines_do(bake, tmp_path, answers):
    need("terraform")
    folder = shutil.copytree(bake(**answers, queues="high, low"), tmp_path / "project")
    with emulator(folder, tmp_path / "emulator.log") as aws:
        pipeline = Pipeline(folder, aws)
        aws.enforce(True)
        pipeline.become("deploy")
        pipeline.apply()
        assert pipeline.foreign() == set()
        pipeline.become("plan")
        pipeline.make("plan", TF_CLI_ARGS_plan="-lock=false")
        pipeline.unprotect()
        with pytest.raises(AssertionError, match=r"(?i)denied|not authorized"):
            pipeline.run("destroy", "-auto-approve", "-lock=false", "-var=image_tag=", "-var=environment=staging")
        pipeline.become("deploy")
        pipeline.destroy()
