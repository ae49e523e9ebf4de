"""The projects' Terraform: valid for every combination, and applied to an emulator with IAM switched on.

The tests of the modules (library/terraform/) run in test_library.py; the projects' own, in test_projects.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from base64 import b64decode
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest import (
    BIN,
    CHOICES,
    PAIRS,
    PROJECT,
    RULES,
    TEMPLATE,
    eventually,
    label,
    need,
    show,
    source_path,
    tree,
)
from module_tests import add_module_tests
from test_rules import BOUNDARIES, CONTRACT, QUEUE, bounds, changed

pytestmark = pytest.mark.timeout(900)

# Together they hold every option's files.
FLAVOURS = [
    {"broker": "sqs-standard", "results": "s3", "credentials": "role", "compute": "ecs"},
    {"broker": "sqs-fifo", "results": "dynamodb", "credentials": "keys", "compute": "ec2"},
    {"broker": "sqs-standard", "results": "redis", "credentials": "role", "compute": "ec2"},
    {"broker": "rabbitmq", "results": "none", "credentials": "keys", "compute": "ecs"},
    {"broker": "rabbitmq", "results": "s3", "credentials": "role", "compute": "ec2"},
]

# The emulator reads back less than was written, so that a second plan shows these as changed.
READ_BACK_WRONG = {
    "aws_appautoscaling_target",  # tags
    "aws_autoscaling_group",  # mixed instances, warm-up
    "aws_autoscaling_lifecycle_hook",  # a notification target that nobody gave
    "aws_autoscaling_policy",  # enabled
    "aws_ecs_service",  # capacity providers
    "aws_elasticache_replication_group",  # encryption
    "aws_launch_template",  # tags
    "aws_vpc_security_group_egress_rule",  # description, where a group is referenced
    "aws_vpc_security_group_ingress_rule",
}

EMULATED = """
provider "aws" {
  max_retries                 = 5 # Connections are lost now and then, as at AWS.
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_region_validation      = true
}
"""
LOCAL_STATE = """
terraform {
  backend "local" {}
}
"""


def clean_environment(**more):
    """Return this environment without what leads to AWS, or to another emulator."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "CHECKPOINT_DISABLE": "true", "TF_IN_AUTOMATION": "true", **more}


def run(*command, cwd=None, environment=None, status=0, timeout=600):
    """Run a command that must end with a status, and return what it said; in time, in seconds."""
    done = subprocess.run(
        command, cwd=cwd, env=environment or clean_environment(), capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == status, f"{command}\n{done.stderr[-6000:]}\n{done.stdout[-2000:]}"
    return (done.stdout + (done.stderr if status else "")).strip()


@pytest.fixture
def project(project):
    """Bake a project that may be changed, where there is a Terraform to run in it."""
    need("terraform")
    return project


SERVICE = Path("chassis") / "terraform" / "service"
"""Where a project has the module."""
TESTED = ("terraform", SERVICE)
"""Where a project has Terraform that is tested."""


def initialize(folder):
    run("terraform", "init", "-backend=false", "-input=false", "-no-color", cwd=folder)


def edit_contract(folder, change):
    path = folder / "contract.json"
    contract = json.loads(path.read_text(encoding="utf-8"))
    change(contract)
    path.write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")


# What can be said of Terraform's files by themselves.


def test_flavours_hold_every_option():
    assert {(choice, flavour[choice]) for flavour in FLAVOURS for choice in CHOICES} == {
        (choice, option) for choice, options in CHOICES.items() for option in options
    }


@pytest.mark.parametrize("answers", PAIRS[::4], ids=label)  # The others' own tests do the same.
def test_is_formatted_and_valid(project, answers):
    folder = project(**answers)
    for name in TESTED:
        run("terraform", "fmt", "-check", "-recursive", "-diff", cwd=folder / name)
        initialize(folder / name)
        run("terraform", "validate", "-no-color", cwd=folder / name)


NUMBER_RULES = [
    rule
    for rule in (*RULES.SERVICE_RULES, *RULES.QUEUE_RULES)
    if isinstance({**QUEUE, **CONTRACT}[rule.field], (int, float)) and not rule.advice
]


def contracts_around_every_boundary(rules, broker):
    """Yield changes to a contract, whether they break rules or not."""
    for _, holds, breaks in BOUNDARIES:
        for changes in (holds, breaks):
            if changes.get("broker", broker).partition("-")[0] != broker or "queues" in changes:
                continue
            if not any(value != value for value in changes.values()):  # JSON has no NaN.
                yield changes
    for rule, low, high in bounds():
        step = 1 if isinstance(low, int) else 0.0001
        if rule in rules:
            yield from ({rule.field: value} for value in (low - step, low, high, high + 1))
    yield {"max_receive_count": "5"}
    yield {"workers_max": 1.5}


@pytest.mark.parametrize("broker", ["sqs", "rabbitmq"])
def test_terraform_says_of_every_boundary_what_the_contract_says(tmp_path, broker):
    """All of them in one run, since the rules need nothing but a contract."""
    need("terraform")
    rules = [rule for rule in NUMBER_RULES if rule.is_for(broker)]
    numbers = {rule.field for rule in rules}
    asked, expected = {}, {}
    for index, changes in enumerate(contracts_around_every_boundary(rules, broker)):
        contract = changed({"broker": "sqs-standard" if broker == "sqs" else broker, **changes})
        asked[str(index)] = contract
        expected[str(index)] = [problem for problem in RULES.problems(contract) if problem.field in numbers]
    (tmp_path / "rules").mkdir()
    for file in ("rules.tf", f"rules_{broker}.tf"):
        shutil.copy(PROJECT / SERVICE / file, tmp_path / "rules")
    (tmp_path / "rules" / "contract.tf").write_text(
        'variable "contract" { type = any }\n'
        "locals { contract = var.contract }\n"
        'output "broken_rules" { value = local.broken_rules }\n'
    )
    (tmp_path / "contracts.json").write_text(json.dumps(asked))
    (tmp_path / "main.tf").write_text(
        'module "rules" {\n'
        '  source   = "./rules"\n'
        '  for_each = jsondecode(file("contracts.json"))\n'
        "  contract = each.value\n"
        "}\n"
        'output "broken_rules" { value = { for name, rules in module.rules : name => rules.broken_rules } }\n'
    )
    initialize(tmp_path)
    run("terraform", "apply", "-auto-approve", cwd=tmp_path)
    said = json.loads(run("terraform", "output", "-json", "broken_rules", cwd=tmp_path))
    repeated = set()
    for index, problems in expected.items():
        first = [str(problem).partition("\n    why:")[0] for problem in problems[:1]]
        # Behind the first, the rules go on as if its suggestion had been followed.
        assert first == [text for text in said[index] if text in first], (asked[index], said[index])
        assert bool(first) == bool(said[index]), (asked[index], said[index])
        repeated |= {re.sub(r" \(.*?\)", "", text.partition("\n")[0]) for text in said[index]}
    assert {f"{rule.field} {rule.says}" for rule in rules} - {
        text.removeprefix("queue default: ") for text in repeated
    } == set()


def test_a_plan_of_a_contract_that_breaks_rules_ends_with_what_the_service_says(project):
    folder = project(queues="one, two")

    def break_rules(contract):
        contract.update(wait_time_seconds=21)
        contract["queues"][0].update(visibility_timeout_seconds=659)
        contract["queues"][1].update(max_receive_count=0)

    edit_contract(folder, break_rules)
    initialize(folder / "terraform")
    said = run("terraform", "test", "-no-color", cwd=folder / "terraform", status=1)
    with pytest.raises(RULES.ContractError) as refused:
        RULES.read(folder / "contract.json")
    whole = [line for line in str(refused.value).splitlines() if "why:" not in line]
    assert "\n".join(whole).removeprefix(f"{folder}/") in said
    assert said.count("Error: ") == 1


# Not among the requirements: it pins what it needs to versions that others here cannot have.
CHECKOV = (sys.executable, "-m", "uv", "tool", "run", "--quiet", "--from", "checkov==3.3.30", "checkov")


@pytest.fixture
def checkov():
    """Run checkov in a project; on a machine that cannot have it just now, skip."""
    if not os.environ.get("CI") and subprocess.run([*CHECKOV, "--version"], capture_output=True).returncode:
        pytest.skip("checkov cannot be had on this machine just now")
    return lambda folder, *options, **more: run(*CHECKOV, "-d", ".", "--skip-download", *options, cwd=folder, **more)


@pytest.mark.slow
@pytest.mark.parametrize("answers", PAIRS, ids=label)
def test_checkov_finds_nothing_unexplained(bake, checkov, answers):
    found = json.loads(checkov(bake(**answers), "--output=json"))
    assert sum(kind["summary"]["passed"] for kind in found) > 300
    # A file that it cannot read, it leaves out without another word.
    assert [kind["check_type"] for kind in found if kind["summary"]["parsing_errors"]] == []


@pytest.mark.slow
def test_checkov_would_be_heard(project, checkov):
    folder = project()
    (folder / ".checkov.yaml").write_text("framework: [terraform]\n")
    assert "FAILED for resource" in checkov(folder, status=1)


MISTAKES = {
    "a right too many": ("queues_sqs.tf", '"sqs:DeleteMessage", ', '"sqs:DeleteMessage", "sqs:GetQueueUrl", '),
    "the wrong queue watched": ("metrics_sqs.tf", "= queue.dead_letter_name", "= queue.queue_name"),
    "killed too early": ("compute_ecs.tf", "= local.contract.stop_timeout_seconds\n", "= 30\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_terraform_fail_its_tests(project, mistake):
    folder = project()
    add_module_tests(folder)
    folder /= SERVICE
    file, right, wrong = MISTAKES[mistake]
    text = (folder / file).read_text(encoding="utf-8")
    assert right in text
    (folder / file).write_text(text.replace(right, wrong), encoding="utf-8")
    initialize(folder)
    assert "Failure!" in run("terraform", "test", "-no-color", cwd=folder, status=1)


@pytest.mark.slow
@pytest.mark.parametrize("compute", CHOICES["compute"])
def test_a_queue_that_may_sleep_is_woken_and_put_to_sleep(project, compute):
    folder = project(compute=compute)
    add_module_tests(folder)
    edit_contract(folder, lambda contract: contract["queues"][0].update(workers_min=0))
    for name in TESTED:
        initialize(folder / name)
        assert "Success!" in run("terraform", "test", "-no-color", cwd=folder / name)


def test_module_file_when_in_two_services_then_is_the_same(bake):
    known = {}
    for answers in PAIRS:
        for name, content in tree(bake(**answers) / "chassis" / "terraform").items():
            assert known.setdefault(name, content) == content, name
    assert len(known) > 60


PLANNED_AS_THE_PAGE_SAYS = """
run "invoices" {
  command = plan

  variables {
    environment = "staging"
    image_tag   = "1"
  }

  assert {
    condition     = output.environment.INVOICES_BUCKET == "acme-jobs-staging-invoices"
    error_message = "Workers do not learn where invoices are."
  }
}
"""


@pytest.mark.parametrize("compute", CHOICES["compute"])
def test_own_resources_when_added_as_documented_then_are_planned(project, compute):
    folder = project(compute=compute)
    root, page = folder / "terraform", (folder / "docs" / "extending.md").read_text(encoding="utf-8")
    example, inputs = re.findall(r"^```hcl\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (root / example.partition("\n")[0].removeprefix("# terraform/")).write_text(example, encoding="utf-8")
    main = (root / "main.tf").read_text(encoding="utf-8")
    empty = "  environment_variables = {}\n  secrets               = {}\n"
    assert empty in main
    (root / "main.tf").write_text(main.replace(empty, inputs), encoding="utf-8")
    with (root / "tests" / "plan.tftest.hcl").open("a", encoding="utf-8") as tests:
        tests.write(PLANNED_AS_THE_PAGE_SAYS)
    run("terraform", "fmt", "-check", "-diff", cwd=root)
    initialize(root)
    assert "Success!" in run("terraform", "test", "-no-color", cwd=root)


def test_pipeline_roles_when_given_own_policies_then_have_them(project):
    folder = project()
    page = (folder / "docs" / "extending.md").read_text(encoding="utf-8")
    (policy,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    own, pipeline = folder / "terraform" / "pipeline", folder / "chassis" / "terraform" / "pipeline"
    own.mkdir()
    (own / "deploy.json").write_text(policy, encoding="utf-8")
    add_module_tests(folder)
    initialize(pipeline)
    said = run("terraform", "test", "-json", "-verbose", "-filter=tests/pipeline.tftest.hcl", cwd=pipeline)
    plan = next(report["test_plan"] for report in map(json.loads, said.splitlines()) if "test_plan" in report)
    policies = {
        each["index"]: each["change"]["after"]["policy"]
        for each in plan["resource_changes"]
        if each["type"] == "aws_iam_role_policy"
    }
    bucket = "arn:aws:s3:::acme-jobs-staging-invoices"
    assert {role: bucket in text for role, text in policies.items()} == {"plan": False, "deploy": True}


# Applied to an emulator.


class Emulator:
    """Emulated AWS, and those who have rights in it."""

    def __init__(self, url, region):
        self.url, self.region = url, region
        self.owner = {"AWS_ACCESS_KEY_ID": "EMULATOREMULATOR", "AWS_SECRET_ACCESS_KEY": "secret"}

    def environment(self, identity):
        """Return environment variables that lead somebody to the emulator."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            **identity,
        }

    def client(self, service, identity=None):
        identity = identity or self.owner
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=identity["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=identity["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=identity.get("AWS_SESSION_TOKEN"),
        )

    def assume(self, role_arn):
        """Return the credentials of a role."""
        given = self.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="test")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }

    def somebody_with(self, policy_arn, name):
        """Return the credentials of a new role that has one policy."""
        iam = self.client("iam")
        trust = {
            "Version": "2012-10-17",
            "Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"},
        }
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        iam.attach_role_policy(RoleName=name, PolicyArn=policy_arn)
        return self.assume(role["Arn"])

    def enforce(self, enforced):
        """Switch IAM on or off."""
        free = b"0" if enforced else b"1000000"
        text = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=free, headers=text))


@contextmanager
def emulator(folder, log):
    region = json.loads((folder / "contract.json").read_text(encoding="utf-8"))["region"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(TEMPLATE / "tests" / "aws.py")],
            cwd=folder,
            env=clean_environment(PYTHONPATH=source_path(folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
        try:
            url = process.stdout.readline().strip()
            assert url, log.read_text()
            yield Emulator(url, region)
        finally:
            process.stdin.close()
            process.wait(timeout=20)


def denied(call, **arguments):
    """Tell whether a call is refused for lack of rights."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return False


def hurry(contract):
    for queue in contract["queues"]:
        queue["retry_backoff_seconds"] = 0.1
    if contract["broker"] != "rabbitmq":  # Which is not polled, and whose queues never sleep.
        contract["wait_time_seconds"] = 1
        contract["queues"][1]["workers_min"] = 0


@pytest.mark.slow
@pytest.mark.parametrize("answers", FLAVOURS, ids=label)
def test_applied_service_works_with_its_own_rights_and_no_more(project, tmp_path, answers):
    if answers["results"] == "redis":
        need("redis-server")
    folder = project(**answers, queues="high, low")
    edit_contract(folder, hurry)
    has_flower = (folder / SERVICE / "flower_rabbitmq_ecs.tf").exists()
    if has_flower:
        with (folder / "terraform" / "environments" / "staging.tfvars").open("a") as variables:
            variables.write('broker = { flower_image_tag = "flower-1" }\n')
    with emulator(folder, tmp_path / "emulator.log") as aws:
        deployment = Deployment(folder, aws, kept_in_bucket=answers is FLAVOURS[0])
        deployment.apply()
        if answers["broker"] == "rabbitmq":
            worker = use_broker_with_own_rights(answers, folder, aws, deployment)
            if has_flower:
                look_at_flower_with_own_rights(folder, aws, deployment, worker, tmp_path)
        else:
            use_with_own_rights(answers, folder, aws, deployment.outputs(), tmp_path)
        assert deployment.changes() <= READ_BACK_WRONG
        if answers is FLAVOURS[1]:
            move_what_was_made_before_the_chassis(deployment)
        deployment.unprotect()
        deployment.destroy()
        assert everything_in(aws) == {}
    show("stacks applied")


def move_what_was_made_before_the_chassis(deployment):
    """Let the state have everything in the root, as it was then, and do what docs/updating.md says.

    What was moved is destroyed in the end: the emulator cannot update all of it.
    """
    state = deployment.terraform / "terraform.tfstate"
    known = json.loads(state.read_text(encoding="utf-8"))
    for resource in known["resources"]:
        assert resource.pop("module") == "module.service"
    state.write_text(json.dumps(known).replace("module.service.", ""), encoding="utf-8")
    page = (TEMPLATE / "docs" / "updating.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(make deployed .*?)^```", page, re.MULTILINE | re.DOTALL)
    deployment.follow(commands)
    plan = json.loads(deployment.run("show", "-json", "staging.tfplan"))
    changes = [change for change in plan["resource_changes"] if change["mode"] == "managed"]
    assert {change["address"] for change in changes if {"create", "delete"} & set(change["change"]["actions"])} == set()
    assert all(change["address"] == f"module.service.{change['previous_address']}" for change in changes)


class Deployment:
    """A project's Terraform at work on the emulator."""

    def __init__(self, folder, aws, kept_in_bucket):
        self.folder, self.terraform = folder, folder / "terraform"
        self.environment = clean_environment(**aws.environment(aws.owner))
        if kept_in_bucket:
            self._bootstrap()
        else:
            (self.terraform / "test_override.tf").write_text(EMULATED + LOCAL_STATE)
            (self.terraform / "environments" / "staging.s3.tfbackend").write_text("")

    def _bootstrap(self):
        """Follow the README, which asks before it makes the bucket."""
        for root in (self.terraform, self.folder / "chassis" / "terraform" / "bootstrap"):
            (root / "test_override.tf").write_text(EMULATED)
        self.make("bootstrap", TF_CLI_ARGS_apply="-auto-approve")
        backend = self.terraform / "environments" / "staging.s3.tfbackend"
        backend.write_text(backend.read_text() + "use_path_style = true\n")

    def make(self, target, **more):
        run("make", target, "ENV=staging", cwd=self.folder, environment={**self.environment, **more, "MAKEFLAGS": ""})

    def run(self, *arguments, **options):
        return run("terraform", *arguments, cwd=self.terraform, environment=self.environment, **options)

    def apply(self):
        self.make("plan", TAG="1")
        self.make("apply", TF_CLI_ARGS_apply="-parallelism=40")

    def outputs(self):
        return {name: output["value"] for name, output in json.loads(self.run("output", "-json")).items()}

    def refreshed(self):
        """Return the state as a plan would write it, as text."""
        self.make("plan")
        return self.run("show", "-json", "staging.tfplan")

    def changes(self):
        """Return the types of all that a second plan would change."""
        plan = json.loads(self.refreshed())
        assert plan["variables"]["image_tag"]["value"] == "1", "a plan forgot which image is deployed"
        return {
            change["type"]
            for change in plan["resource_changes"]
            if not {"no-op", "read"} & set(change["change"]["actions"])
        }

    def follow(self, commands, **options):
        """Run commands of the docs as they stand, in the project's folder."""
        path = os.pathsep.join((str(BIN), os.environ["PATH"]))
        environment = {**self.environment, "PATH": path, "MAKEFLAGS": ""}
        # Version 1 of the AWS command has an endpoint of its own for SQS, whatever the environment says.
        led = 'aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }\n' + commands
        return run("bash", "-euo", "pipefail", "-c", led, cwd=self.folder, environment=environment, **options)

    def unprotect(self):
        """Let Terraform destroy queues, as docs/operations.md says; tests work on copies of a project."""
        queues = self.folder / SERVICE / "queues_sqs.tf"
        if queues.exists():
            text = queues.read_text(encoding="utf-8")
            assert text.count("prevent_destroy = true") == 2
            queues.write_text(text.replace("prevent_destroy = true", "prevent_destroy = false"), encoding="utf-8")

    def destroy(self):
        variables = ("-var-file=environments/staging.tfvars", "-var=image_tag=")
        self.run("destroy", "-auto-approve", "-parallelism=40", *variables)
        assert self.run("state", "list") == ""


def everything_in(aws):
    """Return what there is of the service, except what the test itself and `make bootstrap` made."""
    found = {
        "queues": aws.client("sqs").list_queues().get("QueueUrls", []),
        "tables": aws.client("dynamodb").list_tables()["TableNames"],
        "buckets": [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]],
        "users": aws.client("iam").list_users()["Users"],
        "roles": [role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]],
        "policies": aws.client("iam").list_policies(Scope="Local")["Policies"],
        "clusters": [
            cluster
            for cluster in aws.client("ecs").describe_clusters(clusters=["acme-jobs-staging"])["clusters"]
            if cluster["status"] != "INACTIVE"
        ],
        "groups": aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"],
        "networks": [vpc for vpc in aws.client("ec2").describe_vpcs()["Vpcs"] if not vpc["IsDefault"]],
        "endpoints": [
            endpoint
            for endpoint in aws.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
            if endpoint["State"] != "deleted"
        ],
        "caches": aws.client("elasticache").describe_replication_groups()["ReplicationGroups"],
        "brokers": aws.client("mq").list_brokers()["BrokerSummaries"],
        "alarms": aws.client("cloudwatch").describe_alarms()["MetricAlarms"],
        "topics": aws.client("sns").list_topics()["Topics"],
        "logs": aws.client("logs").describe_log_groups()["logGroups"],
        "images": aws.client("ecr").describe_repositories()["repositories"],
        "secrets": aws.client("secretsmanager").list_secrets()["SecretList"],
    }
    ours = {"the-producer", "the-operator", "the-operator-of-flower", "another-producer", "somebody-elses"}
    return {
        kind: left
        for kind, things in found.items()
        if (left := [thing for thing in things if not str(thing).endswith((*ours, "-state-123456789012"))])
    }


# A queue that leaves the contract.


def blocks_of(folder, heading, language="sh"):
    """Return the blocks of a section of docs/operations.md."""
    text = (folder / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [block.replace("\n   ", "\n") for block in re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)]


def queues_at(aws):
    return {url.rpartition("/")[2] for url in aws.client("sqs").list_queues().get("QueueUrls", [])}


def queues_in(deployment):
    return {line for line in deployment.run("state", "list").splitlines() if ".aws_sqs_queue." in line}


@pytest.mark.slow
def test_queue_removed_from_the_contract_is_not_destroyed(project, tmp_path):
    folder = project(broker="sqs-fifo", results="none", queues="high, low")
    _, forget, delete = blocks_of(folder, "Removing or renaming a queue")
    (bring_back,) = blocks_of(folder, "Removing or renaming a queue", "hcl")
    contract = (folder / "contract.json").read_text(encoding="utf-8")
    with emulator(folder, tmp_path / "emulator.log") as aws:
        deployment = Deployment(folder, aws, kept_in_bucket=False)
        deployment.apply()
        there, known = queues_at(aws), queues_in(deployment)
        gone = {"acme-jobs-staging-high.fifo", "acme-jobs-staging-high-dlq.fifo"}
        assert len(there - gone) == 2
        sqs = aws.client("sqs")
        high = sqs.get_queue_url(QueueName="acme-jobs-staging-high.fifo")["QueueUrl"]
        sqs.send_message(QueueUrl=high, MessageBody="x", MessageGroupId="g", MessageDeduplicationId="d")

        edit_contract(folder, lambda contract: contract["queues"].pop(0))
        variables = ("-no-color", "-var-file=environments/staging.tfvars", "-var=image_tag=1")
        said = deployment.run("plan", *variables, status=1)
        assert re.search(r'aws_sqs_queue\.\w+\["high"\] has\s+lifecycle.prevent_destroy\s+set', said), said
        assert "docs/operations.md says how to remove or rename a queue" in said

        # The queues that Terraform forgot are found by `doctor`, and can be brought back with their messages.
        deployment.follow(forget)
        assert queues_at(aws) == there
        assert {line for line in queues_in(deployment) if "high" in line} == set()
        found = json.loads(command(folder, aws, aws.owner, "doctor", "--json", status=1))
        orphans = {each["subject"]: each["says"] for each in found if each["code"] == "D213"}
        assert orphans.keys() == {"high", "high dlq"}
        assert "1 waiting" in orphans["high"]
        assert "empty" in orphans["high dlq"]
        (folder / "contract.json").write_text(contract, encoding="utf-8")
        (folder / "terraform" / "import.tf").write_text(bring_back, encoding="utf-8")
        deployment.make("plan")
        deployment.make("apply")
        (folder / "terraform" / "import.tf").unlink()
        assert (queues_at(aws), queues_in(deployment)) == (there, known)
        (message,) = sqs.receive_message(QueueUrl=high)["Messages"]
        sqs.delete_message(QueueUrl=high, ReceiptHandle=message["ReceiptHandle"])

        edit_contract(folder, lambda contract: contract["queues"].pop(0))
        deployment.follow(forget)
        deployment.follow(delete)
        assert queues_at(aws) == there - gone

        # A queue with another name is another queue, and `terraform destroy` would delete all of them.
        edit_contract(folder, lambda contract: contract["queues"][0].update(name="renamed"))
        for refused in (("plan",), ("destroy", "-auto-approve")):
            assert "Instance cannot be destroyed" in deployment.run(*refused, *variables, status=1)
        assert queues_at(aws) == there - gone
        deployment.unprotect()
        deployment.destroy()
        assert queues_at(aws) == set()


# What workers, senders and operators can do with their own rights.


def use_with_own_rights(answers, folder, aws, outputs, tmp_path):
    """Send, work, fail, dead-letter and redrive, with IAM switched on."""
    queues = {
        name: {kind: aws.client("sqs").get_queue_url(QueueName=queue)["QueueUrl"] for kind, queue in both.items()}
        for name, both in outputs["queues"].items()
    }
    other = aws.client("sqs").create_queue(QueueName="somebody-elses")["QueueUrl"]
    producer = aws.somebody_with(outputs["policy_arns"]["producer"], "the-producer")
    operator = aws.somebody_with(outputs["policy_arns"]["operator"], "the-operator")
    worker = rotated_key(folder, aws) if answers["credentials"] == "keys" else aws.assume(outputs["credentials"])
    aws.enforce(True)
    with ExitStack() as stack:
        stack.callback(aws.enforce, False)
        environment = clean_environment(
            **outputs["environment"], PYTHONPATH=f"{source_path(folder)}{os.pathsep}{TEMPLATE / 'tests'}"
        )
        base = environment["QUEUE_URL_BASE"].rpartition("/")
        assert base[0] == f"https://sqs.{aws.region}.amazonaws.com"
        environment["QUEUE_URL_BASE"] = f"{aws.url}/{base[2]}"
        if answers["results"] == "redis":
            environment["RESULTS_URL"] = stack.enter_context(redis(folder))

        log = tmp_path / "worker.log"
        process = subprocess.Popen(
            [sys.executable, "-m", "acme_jobs", "worker", "high", "--include=library.probes"],
            cwd=folder,
            env={**environment, **aws.environment(worker)},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )
        stack.callback(process.wait, timeout=60)
        stack.callback(process.terminate)

        def send(code):
            sender = {**environment, **aws.environment(producer)}
            return run(sys.executable, "-c", code, cwd=folder, environment=sender)

        try:
            follow_a_task(answers, aws, queues, operator, send, tmp_path)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()[-6000:]}") from error
        nobody_may_do_more(aws, queues, other, producer, worker, operator)
        commands_work_for(operator, folder, aws, environment)
        aws_commands_work_for(operator, folder, aws)


def use_broker_with_own_rights(answers, folder, aws, deployment):
    """Read the password and look at the broker, with IAM switched on; the emulated one is a name without a server.

    Returns the worker's credentials.
    """
    outputs, secrets, brokers = deployment.outputs(), aws.client("secretsmanager"), aws.client("mq")
    secret = outputs["broker_secret_arn"]
    (broker,) = (summary["BrokerId"] for summary in brokers.list_brokers()["BrokerSummaries"])
    assert outputs["queues"]["high"] == {"queue": "high", "dead_letters": "high-dlq"}
    settings_take(outputs["environment"], folder, BROKER_USERNAME="service", BROKER_PASSWORD="x")
    first = json.loads(secrets.get_secret_value(SecretId=secret)["SecretString"])
    assert (first["username"], len(first["password"])) == ("service", 36)
    other = secrets.create_secret(Name="somebody-elses", SecretString="x")["ARN"]
    live = change_passwords(folder, aws, secrets, secret, first["password"])
    assert live not in deployment.refreshed()

    producer = aws.somebody_with(outputs["policy_arns"]["producer"], "the-producer")
    operator = aws.somebody_with(outputs["policy_arns"]["operator"], "the-operator")
    worker = rotated_key(folder, aws) if answers["credentials"] == "keys" else aws.assume(outputs["credentials"])
    aws.enforce(True)
    try:
        for identity in (producer, worker, operator):
            own = aws.client("secretsmanager", identity)
            # Which the emulator does not take for the current one unless told so.
            assert live in own.get_secret_value(SecretId=secret, VersionStage="AWSCURRENT")["SecretString"]
            assert denied(own.get_secret_value, SecretId=other)
            assert denied(own.put_secret_value, SecretId=secret, SecretString="x")
            assert denied(aws.client("mq", identity).reboot_broker, BrokerId=broker)
            assert denied(aws.client("mq", identity).delete_broker, BrokerId=broker)
            assert denied(aws.client("iam", identity).list_users)
        for identity in (producer, worker):
            assert denied(aws.client("mq", identity).describe_broker, BrokerId=broker)
        assert aws.client("mq", operator).describe_broker(BrokerId=broker)["EngineType"].upper() == "RABBITMQ"
        command(folder, aws, operator, "metrics")
        aws_commands_work_for(operator, folder, aws, blocks=4)
    finally:
        aws.enforce(False)
    secrets.delete_secret(SecretId=other, ForceDeleteWithoutRecovery=True)
    return worker


def look_at_flower_with_own_rights(folder, aws, deployment, worker, tmp_path):
    """Give Flower its password as the docs say, read it with IAM switched on, and open a session that is pretended."""
    need("openssl")
    outputs, secret = deployment.outputs(), "acme-jobs-staging-broker-flower"
    script = folder / "chassis" / "terraform" / "flower_rabbitmq_ecs.sh"
    run(BIN / "shellcheck", script, cwd=folder)
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    (put,) = re.findall(r"^printf .*?stdin$", (folder / "docs" / "delivery.md").read_text(), re.DOTALL | re.MULTILINE)
    owner = clean_environment(PATH=path, **aws.environment(aws.owner))
    run("bash", "-euo", "pipefail", "-c", put, cwd=folder, environment=owner)
    assert "on-call:" not in deployment.refreshed()

    on_call = aws.somebody_with(outputs["flower_policy_arn"], "the-operator-of-flower")
    producer = aws.somebody_with(outputs["policy_arns"]["producer"], "another-producer")
    aws.enforce(True)
    try:
        value = aws.client("secretsmanager", on_call).get_secret_value(SecretId=secret)["SecretString"]
        assert re.fullmatch(r"on-call:[0-9a-f]{32}", value)
        assert denied(aws.client("secretsmanager", on_call).get_secret_value, SecretId="acme-jobs-staging-broker")
        for identity in (producer, worker):
            assert denied(aws.client("secretsmanager", identity).get_secret_value, SecretId=secret)
        # The emulator starts no tasks.
        operator = clean_environment(PATH=path, **aws.environment(on_call))
        assert "Flower is not running" in run(script, "acme-jobs-staging", cwd=folder, environment=operator, status=1)
    finally:
        aws.enforce(False)

    pretended = tmp_path / "bin" / "aws"
    pretended.parent.mkdir()
    pretended.write_text(
        "#!/bin/sh\ncase $2 in list-tasks) echo arn:aws:ecs:r:1:task/c/task1 ;; describe-tasks) echo runtime1 ;;\n"
        '*) echo "$@" ;; esac\n'
    )
    pretended.chmod(0o755)
    opened = clean_environment(PATH=os.pathsep.join((str(pretended.parent), os.environ["PATH"])))
    said = run(script, "acme-jobs-staging", cwd=folder, environment=opened)
    assert "ssm start-session --target ecs:acme-jobs-staging_task1_runtime1 --document-name AWS-Start" in said
    assert f"--secret-id {secret}" in said


class Management(BaseHTTPRequestHandler):
    """Answers like RabbitMQ's management API: who is it, and another password."""

    def do_GET(self):
        self.answer(200 if self.path == "/api/whoami" else 404)

    def do_PUT(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 204 if self.path == "/api/users/service" and body["tags"] == "administrator" else 404
        if self.answer(status) == 204 and not self.server.ignores:
            self.server.password = body["password"]

    def answer(self, status):
        given = b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        if given != f"service:{self.server.password}":
            status = 401
        self.send_response(status)
        self.end_headers()
        return status

    def log_message(self, *arguments):
        pass


def change_passwords(folder, aws, secrets, secret, first):
    """Run rabbitmq_password.sh three times, the second without success, and return the password that holds then."""
    script = folder / "chassis" / "terraform" / "rabbitmq_password.sh"
    run(BIN / "shellcheck", script, cwd=folder)
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    environment = clean_environment(PATH=path, **aws.environment(aws.owner))

    def stored(stage="AWSCURRENT"):
        return json.loads(secrets.get_secret_value(SecretId=secret, VersionStage=stage)["SecretString"])["password"]

    with ThreadingHTTPServer(("127.0.0.1", 0), Management) as server:
        server.password, server.ignores = first, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = (script, secret, "http://broker.example", f"127.0.0.1:{server.server_port}")
        try:
            said = run(*command, cwd=folder, environment=environment)
            second = stored()
            assert second == server.password != first
            server.ignores = True
            said += run(*command, cwd=folder, environment=environment, status=22)
            third = stored("AWSPENDING")
            assert second == stored() == server.password != third
            server.password = third  # It was set, but nobody heard of it.
            said += run(*command, cwd=folder, environment=environment)
            assert third == stored() == server.password
        finally:
            server.shutdown()
    assert not [password for password in (first, second, third) if password in said]
    with pytest.raises(ClientError):
        stored("AWSPENDING")
    return third


def settings_take(environment, folder, **secrets):
    """Let the service check what it is to be started with."""
    whole = clean_environment(**environment, **secrets, PYTHONPATH=source_path(folder))
    whole |= {"AWS_ACCESS_KEY_ID": "AKIDAKIDAKIDAKID", "AWS_SECRET_ACCESS_KEY": "x"}
    run(sys.executable, "-c", "import acme_jobs.celery", cwd=folder, environment=whole)


def follow_a_task(answers, aws, queues, operator, send, tmp_path):
    """Have tasks done, and one fail until it is dead-lettered, is moved back and done."""
    traces, obstacle = tmp_path / "traces", tmp_path / "obstacle"
    traces.mkdir()
    obstacle.touch()
    name = "high.fifo" if answers["broker"] == "sqs-fifo" else "high"
    if answers["results"] != "none":
        code = (
            "from acme_jobs.examples import add_up, count_words\n"
            "from celery import chord\n"
            f"one, two, total = (task.set(queue='{name}') for task in "
            "(count_words.s('one'), count_words.s('one two'), add_up.s()))\n"
            "print(two.apply_async(MessageGroupId='g').get(timeout=60))\n"
            "print(chord([one, two], total).apply_async(MessageGroupId='g').get(timeout=60))\n"
        )
        assert send(code).split() == ["2", "3"]
    kwargs = {"folder": str(traces), "fail_while": str(obstacle)}
    send(
        "from acme_jobs.celery import app\n"
        f"queue = app.amqp.queues['{name}']\n"
        f"app.send_task('library.probes.leave_trace', kwargs={kwargs}, queue=queue, MessageGroupId='g')"
    )

    sqs = aws.client("sqs", operator)
    dead = queues["high"]["dead_letters"]

    def waiting():
        numbers = sqs.get_queue_attributes(
            QueueUrl=dead, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        )["Attributes"]
        return sum(map(int, numbers.values()))

    assert eventually(lambda: waiting() == 1), "nothing was dead-lettered"
    assert len(list(traces.iterdir())) == 5
    (message,) = sqs.receive_message(QueueUrl=dead, VisibilityTimeout=30)["Messages"]
    sqs.change_message_visibility(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    obstacle.unlink()
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.start_message_move_task(SourceArn=arn)
    assert sqs.list_message_move_tasks(SourceArn=arn)["Results"][0]["ApproximateNumberOfMessagesMoved"] == 1
    assert eventually(lambda: len(list(traces.iterdir())) == 6), "nothing was redriven"
    assert waiting() == 0


def nobody_may_do_more(aws, queues, other, producer, worker, operator):
    main, dead = queues["low"]["queue"], queues["low"]["dead_letters"]
    for identity in (producer, worker, operator):
        sqs = aws.client("sqs", identity)
        assert denied(sqs.list_queues) == (identity is not operator)
        assert denied(sqs.create_queue, QueueName="new")
        assert denied(sqs.delete_queue, QueueUrl=main)
        assert denied(sqs.set_queue_attributes, QueueUrl=main, Attributes={"VisibilityTimeout": "0"})
        assert denied(sqs.purge_queue, QueueUrl=main)
        assert denied(sqs.send_message, QueueUrl=other, MessageBody="x")
        assert denied(aws.client("iam", identity).list_users)
    for identity in (producer, operator):
        assert denied(aws.client("sqs", identity).receive_message, QueueUrl=main)
    for identity in (producer, worker):
        sqs = aws.client("sqs", identity)
        assert denied(sqs.receive_message, QueueUrl=dead)
        assert denied(sqs.get_queue_attributes, QueueUrl=dead, AttributeNames=["All"])
        assert denied(sqs.purge_queue, QueueUrl=dead)
    assert denied(aws.client("sqs", producer).send_message, QueueUrl=dead, MessageBody="x")
    group = {"MessageGroupId": "g", "MessageDeduplicationId": "d"} if main.endswith(".fifo") else {}
    aws.client("sqs", worker).send_message(QueueUrl=dead, MessageBody="failed for good", **group)
    aws.client("sqs", operator).send_message(QueueUrl=main, MessageBody="sent again", **group)
    aws.client("sqs", operator).purge_queue(QueueUrl=dead)
    aws.client("cloudwatch", operator).get_metric_data(MetricDataQueries=[], StartTime=0, EndTime=1)


def command(folder, aws, identity, *arguments, status=0, **environment):
    """Run one of the on-call commands with somebody's rights."""
    whole = (sys.executable, "-m", "acme_jobs", *arguments, "--environment", "staging")
    base = clean_environment(PYTHONPATH=source_path(folder))
    return run(*whole, cwd=folder, environment={**base, **environment, **aws.environment(identity)}, status=status)


def commands_work_for(operator, folder, aws, environment):
    """Run the on-call commands with the operator's rights alone, all that can be without metrics."""
    named = {name: environment[name] for name in environment if name.startswith(("QUEUE_URL_BASE", "RESULTS_"))}
    found = json.loads(command(folder, aws, operator, "doctor", "--json", status=1, **named))
    # Of a task's handle that is made up the emulator cannot tell the queue, and so not the right.
    cannot = "operator may not CancelMessageMoveTask"
    missing = [finding for finding in found if not finding["is_well"] and finding["says"] != cannot]
    # The emulator keeps no metrics, and its Redis has no limits.
    assert {finding["code"] for finding in missing} <= {"D401", "D402", "D501"}, missing
    for arguments in (
        ("dlq", "list", "high"),
        ("dlq", "export", "high", str(folder / "letters.jsonl")),
        ("dlq", "import", "high", str(folder / "letters.jsonl")),
        ("dlq", "redrive", "high"),
        ("dlq", "purge", "high", "--yes"),
        ("queues",),
        ("metrics",),
    ):
        command(folder, aws, operator, *arguments)


def aws_commands_work_for(operator, folder, aws, blocks=3):
    """Run the runbook's lines of the AWS command as they stand, but for what is run on a machine."""
    runbook = (folder / "docs" / "runbook.md").read_text(encoding="utf-8")
    found = [block for block in re.findall(r"```sh\n(.*?)```", runbook, re.DOTALL) if "aws " in block]
    assert len(found) == blocks, found
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    environment = clean_environment(ENVIRONMENT="staging", PATH=path, **aws.environment(operator))
    for block in found:
        lines = "".join(line for line in block.splitlines(keepends=True) if "systemctl" not in line)
        lines += 'echo "${BROKER_URL-} ${BROKER_USERNAME-} ${BROKER_PASSWORD-}"\n'
        said = run("bash", "-euo", "pipefail", "-c", lines, cwd=folder, environment=environment)
        assert "BROKER_URL" not in block or re.fullmatch(r"amqps://\S+ service \S{36,}", said), said


def rotated_key(folder, aws):
    """Rotate the worker's key twice, as the README says, and return the stored one."""

    def keys(step, status=0):
        return command(folder, aws, aws.owner, "keys", step, status=status)

    keys("rotate")
    keys("finish")
    keys("rotate")
    keys("rotate", status=2)  # IAM allows two keys.
    assert "deleted: " in keys("finish")
    assert len(aws.client("iam").list_access_keys(UserName="acme-jobs-staging-worker")["AccessKeyMetadata"]) == 1
    secret = aws.client("secretsmanager").get_secret_value(SecretId="acme-jobs-staging-worker")["SecretString"]
    state = (folder / "terraform" / "terraform.tfstate").read_text()
    assert json.loads(secret)["AWS_SECRET_ACCESS_KEY"] not in state
    return json.loads(secret)


@contextmanager
def redis(folder):
    """Run the project's Redis for the laptop; the emulated one is a name without a server."""
    code = (
        "import sys; from contextlib import ExitStack; from celery_aws.dev.results.redis import create\n"
        "with ExitStack() as stack:\n"
        "    print(create({}, stack)['RESULTS_URL'], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source_path(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
