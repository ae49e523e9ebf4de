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
    source_path,
    tree,
)
from module_tests import add_module_tests
from test_rules import BOUNDARIES, changed

pytestmark = pytest.mark.timeout(900)

# Together they hold every option's files.
FLAVOURS = [
    {"broker": "sqs-standard", "results": "s3", "credentials": "role", "compute": "ecs"},
    {"broker": "sqs-fifo", "results": "dynamodb", "credentials": "keys", "compute": "ec2"},
    {"broker": "sqs-standard", "results": "redis", "credentials": "role", "compute": "ec2"},
    {"broker": "rabbitmq", "results": "none", "credentials": "keys", "compute": "ecs"},
    {"broker": "rabbitmq", "results": "s3", "credentials": "role", "compute": "ec2"},
]

# What each of them is given, with the names of what exists before; together the inputs that services have.
INPUTS = [
    """
network       = { internet_access = "none", interface_endpoints = ["sns"] }
alarm_actions = ["{topic}"]
broker        = { keep_trail_days = 1 }
compute       = { sidecars = [{ name = "collector", image = "amazon/aws-otel-collector:v0.43.3", essential = false }] }
""",
    """
permissions_boundary_arn = "{boundary}"
log_level                = "DEBUG"
broker                   = { keep_trail_days = 1 }
""",
    """
network = {
  vpc_id                      = "{vpc}"
  subnet_ids                  = ["{subnets[0]}", "{subnets[1]}"]
  endpoints_security_group_id = "{group}"
  egress                      = { database = { port = 5432, security_group_id = "{group}" } }
}
""",
    """
network                  = { internet_access = "public" }
permissions_boundary_arn = "{boundary}"
broker                   = { flower_image_tag = "flower-1" }
""",
    """
network          = { internet_access = "nat_per_zone" }
image_repository = "{repository}"
""",
]
PROTECTED = (0, 1, 3)
"""Flavours whose data is protected until they are destroyed; of these is everything that keeps data."""

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


def run(*command, cwd=None, environment=None, status=0, timeout=600, stdin=""):
    """Run a command that must end with a status, and return what it said; in time, in seconds."""
    environment = environment or clean_environment()
    options = {"cwd": cwd, "env": environment, "input": stdin, "timeout": timeout}
    done = subprocess.run(command, capture_output=True, text=True, **options)
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
        # Warnings are about what the provider deprecates.
        assert json.loads(run("terraform", "validate", "-json", cwd=folder / name))["diagnostics"] == []


def repeated_rules(broker):
    """Return field and words of the rules that Terraform repeats."""
    text = re.sub(r" \(\${[^}]*}\)", "", (PROJECT / SERVICE / "rules.tf").read_text(encoding="utf-8"))
    return {(rule.field, rule.says) for rule in RULES.ALL_RULES if rule.is_for(broker) and rule.says in text}


def without_values(words):
    """Return a rule's words as the rule has them, without the values of other fields."""
    return re.sub(r" \([^()]*\)", "", words)


def has_sections(changes):
    """Return whether sections that a change replaces are still objects, or lists of them."""
    defaults = [changes.get(name, {}) for name in ("queue_defaults", "worker_defaults")]
    lists = [changes.get(name, []) for name in ("queues", "workers")]
    items = [item for each in lists if isinstance(each, list) for item in each]
    return all(isinstance(each, list) for each in lists) and all(isinstance(each, dict) for each in (*defaults, *items))


def contracts_around_every_boundary(repeated, broker):
    """Yield contracts that hold, or that break only rules that Terraform repeats, each with its problems."""
    for changes in (changes for _, holds, breaks in BOUNDARIES for changes in (holds, breaks)):
        has_nan = any(value != value for value in changes.values())  # Which JSON has not.
        if has_sections(changes) and not has_nan and changes.get("broker", broker).partition("-")[0] == broker:
            contract = changed({"broker": "sqs-standard" if broker == "sqs" else broker, **changes})
            problems = RULES.problems(contract)
            if {(problem.field, without_values(problem.rule)) for problem in problems} <= repeated:
                yield contract, [(problem.field, problem.rule, str(problem.suggestion)) for problem in problems]


def said_by_terraform(text):
    """Return field, rule and suggestion of a broken rule, without the queue or worker: defaults are each one's."""
    return re.fullmatch(r"(?:(?:queue|worker) \S+: )?(\w+) (.*)\n    given: .*\n    try:   (.*)", text).groups()


@pytest.mark.parametrize("broker", ["sqs", "rabbitmq"])
def test_terraform_says_of_every_boundary_what_the_contract_says(tmp_path, broker):
    """All of them in one run, since the rules need nothing but a contract."""
    need("terraform")
    repeated = repeated_rules(broker)
    asked, expected = {}, {}
    for contract, problems in contracts_around_every_boundary(repeated, broker):
        asked[str(len(asked))] = contract
        expected[str(len(expected))] = problems
    (tmp_path / "rules").mkdir()
    for file in ("contract.tf", "rules.tf"):
        shutil.copy(PROJECT / SERVICE / file, tmp_path / "rules")
    (tmp_path / "rules" / "interface.tf").write_text(
        'variable "contract" { type = any }\noutput "broken_rules" { value = local.broken_rules }\n'
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
    seen = set()
    for index, problems in expected.items():
        found = {said_by_terraform(text) for text in said[index]}
        # Behind the first, the rules go on as if its suggestion had been followed.
        assert set(problems[:1]) <= found, (asked[index], found)
        assert bool(problems) == bool(found), (asked[index], found)
        seen |= {(field, without_values(rule)) for field, rule, _ in found}
    assert seen == repeated
    chain = {"hard_limit_seconds", "visibility_timeout_seconds", "stop_timeout_seconds"}
    assert chain <= {field for field, _ in seen}


def test_a_plan_of_a_contract_that_breaks_rules_ends_with_what_the_service_says(project):
    folder = project(queues="one, two")

    def break_rules(contract):
        contract.update(stop_timeout_seconds=109)
        contract["queues"][0].update(visibility_timeout_seconds=659)
        contract["queues"][1].update(retention_seconds=3300)

    edit_contract(folder, break_rules)
    initialize(folder / "terraform")
    said = run("terraform", "test", "-no-color", cwd=folder / "terraform", status=1)
    with pytest.raises(RULES.ContractError) as refused:
        RULES.read(folder / "contract.json")
    assert len(refused.value.problems) == 3
    whole = [line for line in str(refused.value).splitlines() if "why:" not in line]
    assert "\n".join(whole).removeprefix(f"{folder}/") in said
    assert said.count("Error: ") == 1


def test_plan_when_a_worker_lists_an_unknown_queue_then_says_so(project):
    folder = project(queues="one, two")
    edit_contract(folder, lambda contract: contract["workers"][0].update(queues=["other"]))
    edit_contract(folder, lambda contract: contract["workers"][1].update(queues=["another"]))
    initialize(folder / "terraform")
    said = run("terraform", "test", "-no-color", cwd=folder / "terraform", status=1)
    with pytest.raises(RULES.ContractError) as refused:
        RULES.read(folder / "contract.json")
    assert str(refused.value).removeprefix(f"{folder}/") in said
    assert said.count("Error: ") == 1


def test_make_plan_when_any_rule_is_broken_then_ends_before_terraform(project):
    folder = project()
    edit_contract(folder, lambda contract: contract.update(wait_time_seconds=21))
    said = run("make", "plan", f"PYTHON={sys.executable}", cwd=folder, status=2)
    assert "wait_time_seconds must be between 0 and 20" in said
    assert "Traceback" not in said and not (folder / "terraform" / ".terraform").exists()


def test_plan_when_the_contract_is_of_version_1_then_names_the_converter(project):
    folder = project(queues="one, two")

    def undo(contract):
        workers = {**contract.pop("worker_defaults"), **contract.pop("workers")[0]}
        numbers = {"concurrency": workers["concurrency"], "workers_min": workers["min"], "workers_max": workers["max"]}
        defaults = contract.pop("queue_defaults")
        contract["queues"] = [{**defaults, **numbers, **queue} for queue in contract["queues"]]

    edit_contract(folder, undo)
    initialize(folder / "terraform")
    said = run("terraform", "test", "-no-color", cwd=folder / "terraform", status=1)
    with pytest.raises(RULES.ContractError) as refused:
        RULES.read(folder / "contract.json")
    assert str(refused.value).removeprefix(f"{folder}/") in said
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


MISTAKES = {  # The tests that notice them; of each: file, right, wrong, and what the tests say.
    "queues_sqs": [
        (
            "queues_sqs.tf",
            '"sqs:DeleteMessage", ',
            '"sqs:DeleteMessage", "sqs:GetQueueUrl", ',
            "A worker has other permissions than it needs.",
        ),
        (
            "metrics_sqs.tf",
            "= queue.dead_letter_name",
            "= queue.queue_name",
            "An alarm has the wrong queue, metric or threshold.",
        ),
    ],
    "compute_ecs": [
        (
            "compute_ecs.tf",
            "= local.contract.stop_timeout_seconds\n",
            "= 30\n",
            "A worker is killed before its soft shutdown is over.",
        )
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("tests", MISTAKES)
def test_mistakes_in_terraform_fail_its_tests(project, tests):
    folder = project()
    add_module_tests(folder)
    folder /= SERVICE
    for file, right, wrong, _ in MISTAKES[tests]:
        text = (folder / file).read_text(encoding="utf-8")
        assert right in text
        (folder / file).write_text(text.replace(right, wrong), encoding="utf-8")
    initialize(folder)
    only = f"-filter=tests/{tests}.tftest.hcl"
    said = run("terraform", "test", "-no-color", only, cwd=folder, status=1)
    assert "Failure!" in said
    assert [words for *_, words in MISTAKES[tests] if words not in said] == []


@pytest.mark.slow
def test_module_tests_of_rabbitmq_on_ecs_pass(project):
    """All others run with the library's own, whose service on RabbitMQ is on EC2."""
    folder = project(broker="rabbitmq", compute="ecs")
    add_module_tests(folder)
    folder /= SERVICE
    initialize(folder)
    found = sorted(path.name for path in (folder / "tests").glob("*_rabbitmq_ecs.tftest.hcl"))
    assert len(found) >= 2
    filters = [f"-filter=tests/{name}" for name in found]
    assert "Success!" in run("terraform", "test", "-no-color", *filters, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("compute", CHOICES["compute"])
def test_worker_when_its_min_is_0_then_is_scaled_from_and_to_zero(project, compute):
    folder = project(compute=compute)
    add_module_tests(folder)
    edit_contract(folder, lambda contract: contract["workers"][0].update(min=0))
    for name in TESTED:
        initialize(folder / name)
        assert "Success!" in run("terraform", "test", "-no-color", cwd=folder / name)


def test_module_file_when_in_two_services_then_is_the_same(bake):
    known = {}
    for answers in PAIRS:
        for name, content in tree(bake(**answers) / "chassis" / "terraform").items():
            assert known.setdefault(name, content) == content, name
    assert len(known) > 50


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
    example, inputs, values = re.findall(r"^```hcl\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (root / example.partition("\n")[0].removeprefix("# terraform/")).write_text(example, encoding="utf-8")
    main = (root / "main.tf").read_text(encoding="utf-8")
    empty = "  environment_variables = {}\n  secrets               = {}\n"
    assert empty in main
    (root / "main.tf").write_text(main.replace(empty, inputs), encoding="utf-8")
    (root / "own.auto.tfvars").write_text(values, encoding="utf-8")
    with (root / "tests" / "plan.tftest.hcl").open("a", encoding="utf-8") as tests:
        tests.write(PLANNED_AS_THE_PAGE_SAYS)
    run("terraform", "fmt", "-check", "-diff", cwd=root)
    initialize(root)
    said = run("terraform", "test", "-json", "-verbose", cwd=root)
    plans = {each["@testrun"]: each["test_plan"] for each in map(json.loads, said.splitlines()) if "test_plan" in each}
    planned = [(each["type"], each["change"]["after"]) for each in plans["invoices"]["resource_changes"]]
    (rule,) = (
        after
        for kind, after in planned
        if kind == "aws_vpc_security_group_egress_rule" and after["description"] == "database"
    )
    assert (rule["from_port"], rule["to_port"], rule["cidr_ipv4"]) == (5432, 5432, "10.9.0.0/16")
    alarms = [after for kind, after in planned if kind == "aws_cloudwatch_metric_alarm" and after["ok_actions"]]
    assert alarms and all("arn:aws:sns:eu-west-1:123456789012:on-call" in alarm["alarm_actions"] for alarm in alarms)
    assert [kind for kind, _ in planned].count("aws_nat_gateway") == 1  # A web API can be called.


OWN_VPC = """
resource "aws_vpc" "own" {
  cidr_block = "10.7.0.0/22"
}

resource "aws_subnet" "own" {
  vpc_id     = aws_vpc.own.id
  cidr_block = "10.7.0.0/23"
}

resource "aws_security_group" "own" {
  vpc_id = aws_vpc.own.id
}

resource "aws_secretsmanager_secret" "own" {
  name = "own"
}
"""
NOTHING_EXISTS = """
provider "aws" {
  region                      = "eu-west-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}

override_data {
  target = module.service.data.aws_caller_identity.current
  values = { account_id = "123456789012" }
}

run "nothing_exists" {
  command = plan

  variables {
    environment = "staging"
    image_tag   = "1"
  }
}
"""


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def pass_own_network(root):
    """Pass a network to the module that is among the owner's resources."""
    (root / "own.tf").write_text(OWN_VPC, encoding="utf-8")
    network = (
        "= { vpc_id = aws_vpc.own.id, subnet_ids = [aws_subnet.own.id], "
        "endpoints_security_group_id = aws_security_group.own.id }"
    )
    replace(root / "main.tf", "= var.network\n", f"{network}\n")


@pytest.mark.parametrize("compute", CHOICES["compute"])
def test_network_and_secret_of_the_owner_when_they_do_not_exist_yet_then_are_planned(project, compute):
    root = project(compute=compute) / "terraform"
    (root / "tests" / "plan.tftest.hcl").write_text(NOTHING_EXISTS, encoding="utf-8")
    pass_own_network(root)
    replace(
        root / "main.tf",
        "secrets               = {}",
        "secrets               = { OWN = aws_secretsmanager_secret.own.arn }",
    )
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


def test_pipeline_roles_when_queues_exist_then_may_change_managed_ones(project):
    folder = project(queues="one, two, three, four")
    pipeline = folder / "chassis" / "terraform" / "pipeline"

    def keep_names(contract):
        one, two, three, _ = contract["queues"]
        one.update(queue_name="old-{environment}", dead_letter_queue_name="dead")
        two.update(queue_name="ordered.fifo", fifo=True)
        three.update(queue_name="theirs", managed=False)

    edit_contract(folder, keep_names)
    add_module_tests(folder)
    initialize(pipeline)
    said = run("terraform", "test", "-json", "-verbose", "-filter=tests/broker_sqs.tftest.hcl", cwd=pipeline)
    plan = next(report["test_plan"] for report in map(json.loads, said.splitlines()) if "test_plan" in report)
    (policy,) = (
        json.loads(each["change"]["after"]["policy"])
        for each in plan["resource_changes"]
        if each["address"] == 'aws_iam_role_policy.this["deploy"]'
    )
    (queues,) = (statement["Resource"] for statement in policy["Statement"] if statement["Sid"] == "Queues")
    assert {arn.rpartition(":")[2] for arn in queues} == {
        *("acme-jobs-staging-*", "old-staging", "dead", "ordered.fifo", "ordered-dlq.fifo")
    }


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
            process.wait(timeout=60)


def denied(call, **arguments):
    """Tell whether a call is refused for lack of rights."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return False


def hurry(contract):
    contract["queue_defaults"]["retry_backoff_seconds"] = 0.1
    contract["task_metrics"] = True
    if contract["broker"] != "rabbitmq":  # Which is not polled, and whose workers never scale to zero.
        contract["wait_time_seconds"] = 1
        contract["workers"][1]["min"] = 0
        contract["long_delays"] = contract["remote_control"] = True
    nightly = {"name": "nightly", "task": "high.send_report", "cron": "30 6 * * mon-fri", "group": "reports"}
    contract["schedules"] = [
        nightly,
        {"name": "off", "task": "low.x", "rate_minutes": 5, "group": "g", "enabled": False},
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", range(len(FLAVOURS)), ids=[label(answers) for answers in FLAVOURS])
def test_applied_service_works_with_its_own_rights_and_no_more(project, tmp_path, number):
    answers = FLAVOURS[number]
    if answers["results"] == "redis":
        need("redis-server")
    folder = project(**answers, queues="high, low")
    edit_contract(folder, hurry)
    with emulator(folder, tmp_path / "emulator.log") as aws:
        existing = create_what_exists(aws)
        give_inputs(folder, number, existing)
        deployment = Pipeline(folder, aws, boundary=existing["boundary"] if "boundary" in INPUTS[number] else "")
        deployment.protect(number in PROTECTED)
        before = everything_in(aws)
        with deployment.as_role("deploy"):
            deployment.apply()
        assert deployment.foreign() == set()
        nothing_of_others_can_be_changed(aws, deployment.roles, existing, is_shared=number == 2)
        look_at_inputs(number, aws, deployment, existing)
        if answers["broker"] == "rabbitmq":
            worker = use_broker_with_own_rights(answers, folder, aws, deployment)
            if (folder / SERVICE / "flower_rabbitmq_ecs.tf").exists():
                look_at_flower_with_own_rights(folder, aws, deployment, worker, tmp_path)
        else:
            use_with_own_rights(answers, folder, aws, deployment, tmp_path)
        with deployment.as_role("plan"):
            assert deployment.changes() <= READ_BACK_WRONG
        if number == 1:
            move_what_was_made_before_the_chassis(deployment)
        if number in PROTECTED:
            refuse_to_destroy(deployment, aws)
        with deployment.as_role("deploy"):
            deployment.destroy()
        assert everything_in(aws) == before
        if number == 2:
            assert ingress(aws, existing["group"]) == []
        if number == 0:
            delete_what_is_left(deployment, aws)


def create_what_exists(aws):
    """Create what services are given, as production's; return names, ids and ARNs."""
    ec2, tags = (
        aws.client("ec2"),
        [{"Key": "Service", "Value": "acme-jobs"}, {"Key": "Environment", "Value": "production"}],
    )

    def tagged(kind):
        return [{"ResourceType": kind, "Tags": tags}]

    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/22", TagSpecifications=tagged("vpc"))["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone, TagSpecifications=tagged("subnet"))[
            "Subnet"
        ]
        for block, zone in (("10.7.0.0/24", f"{aws.region}a"), ("10.7.1.0/24", f"{aws.region}b"))
    ]
    group = {"GroupName": "endpoints", "Description": "x", "VpcId": vpc, "TagSpecifications": tagged("security-group")}
    table = ec2.create_route_table(VpcId=vpc, TagSpecifications=tagged("route-table"))["RouteTable"]
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": allow})
    value = {"Name": "/orders/database", "Value": "postgresql://", "Type": "SecureString"}
    aws.client("ssm").put_parameter(**value)
    return {
        "vpc": vpc,
        "subnets": [subnet["SubnetId"] for subnet in subnets],
        "group": ec2.create_security_group(**group)["GroupId"],
        "table": table["RouteTableId"],
        "address": address["AllocationId"],
        "boundary": aws.client("iam").create_policy(PolicyName="boundary", PolicyDocument=policy)["Policy"]["Arn"],
        "topic": aws.client("sns").create_topic(Name="on-call")["TopicArn"],
        "repository": aws.client("ecr").create_repository(repositoryName="shared/jobs")["repository"]["repositoryUri"],
    }


OWN_SECRET = """
resource "aws_secretsmanager_secret" "own" {
  name                    = "${local.contract.service}-${var.environment}-own"
  recovery_window_in_days = 0
}
"""
OWN_RIGHTS = {
    "plan": ["secretsmanager:DescribeSecret", "secretsmanager:GetResourcePolicy"],
    "deploy": ["secretsmanager:*"],
}


def give_inputs(folder, number, existing):
    """Write values and own resources as an owner does, in two flavours also what docs/extending.md shows."""
    root, page = folder / "terraform", (folder / "docs" / "extending.md").read_text(encoding="utf-8")
    values = root / "environments" / "staging.tfvars"
    text = values.read_text(encoding="utf-8")
    filled = re.sub(r"{\w+(\[\d\])?}", lambda found: found[0].format(**existing), INPUTS[number])
    values.write_text(text + filled, encoding="utf-8")
    main = root / "main.tf"
    if number == 0:
        example, inputs, _ = re.findall(r"^```hcl\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        (policy,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        (root / "invoices.tf").write_text(example, encoding="utf-8")
        empty = "  environment_variables = {}\n  secrets               = {}\n"
        replace(main, empty, inputs)
        (root / "pipeline").mkdir()
        (root / "pipeline" / "deploy.json").write_text(policy, encoding="utf-8")
    if number == 1:
        replace(values, "log_retention_days = 7\n", "log_retention_days = 60\n")
    if number == 2:
        (root / "own.tf").write_text(OWN_SECRET, encoding="utf-8")
        replace(
            main, "secrets               = {}", "secrets               = { OWN = aws_secretsmanager_secret.own.arn }"
        )
        (root / "pipeline").mkdir()
        for role, actions in OWN_RIGHTS.items():
            arn = "arn:${partition}:secretsmanager:${region}:${account}:secret:${name}-own-*"
            statement = {"Sid": f"Own{role}", "Effect": "Allow", "Action": actions, "Resource": arn}
            policy = {"Version": "2012-10-17", "Statement": [statement]}
            (root / "pipeline" / f"{role}.json").write_text(json.dumps(policy), encoding="utf-8")


def nothing_of_others_can_be_changed(aws, roles, existing, is_shared):
    """Try what would harm another environment, as the pipelines' roles."""
    vpc, (subnet, _), group = existing["vpc"], existing["subnets"], existing["group"]
    own = [{"Key": "Service", "Value": "acme-jobs"}, {"Key": "Environment", "Value": "staging"}]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    route = {"RouteTableId": existing["table"], "DestinationCidrBlock": "0.0.0.0/0"}
    template = {"LaunchTemplateName": "theirs", "LaunchTemplateData": {"ImageId": "ami-12345678"}}
    machine = aws.client("ec2").create_launch_template(**template)["LaunchTemplate"]["LaunchTemplateId"]
    aws.enforce(True)
    try:
        for role in roles.values():
            ec2 = aws.client("ec2", role)
            for call, arguments in (
                (ec2.delete_vpc, {"VpcId": vpc}),
                (ec2.modify_vpc_attribute, {"VpcId": vpc, "EnableDnsSupport": {"Value": False}}),
                (ec2.delete_subnet, {"SubnetId": subnet}),
                (ec2.modify_subnet_attribute, {"SubnetId": subnet, "MapPublicIpOnLaunch": {"Value": True}}),
                (ec2.associate_route_table, {"SubnetId": subnet, "RouteTableId": existing["table"]}),
                (ec2.delete_route_table, {"RouteTableId": existing["table"]}),
                (ec2.create_route, {**route, "GatewayId": "igw-12345678"}),
                (ec2.delete_route, route),
                (ec2.release_address, {"AllocationId": existing["address"]}),
                (ec2.delete_security_group, {"GroupId": group}),
                (ec2.authorize_security_group_egress, {"GroupId": group, "IpPermissions": [rule]}),
                (ec2.create_tags, {"Resources": [vpc], "Tags": own}),
                (ec2.create_tags, {"Resources": [group], "Tags": own}),
                (ec2.delete_tags, {"Resources": [vpc], "Tags": own}),
                (ec2.delete_launch_template, {"LaunchTemplateId": machine}),
                (aws.client("iam", role).create_access_key, {"UserName": "x"}),
            ):
                assert denied(call, **arguments), (call, arguments)
            permissions = {"GroupId": group, "IpPermissions": [rule]}
            if not is_shared:
                assert denied(ec2.authorize_security_group_ingress, **permissions)
                assert denied(ec2.revoke_security_group_ingress, **permissions)
        # The plan's role changes nothing of its own environment either.
        plan = roles["plan"]
        topic = existing["topic"].replace("on-call", "acme-jobs-staging-alarms")
        log_group = "/acme-jobs/staging/workers"
        assert denied(aws.client("ec2", plan).create_vpc, CidrBlock="10.8.0.0/22")
        assert denied(aws.client("sns", plan).delete_topic, TopicArn=topic)
        assert denied(aws.client("logs", plan).delete_log_group, logGroupName=log_group)
        assert denied(aws.client("iam", plan).delete_role, RoleName=f"acme-jobs-staging-{aws.region}-workers")
    finally:
        aws.enforce(False)
    aws.client("ec2").delete_launch_template(LaunchTemplateId=machine)


def ways_out(aws, subnet_ids):
    """Return where the default route of each subnet leads, by subnet; None where there is none."""
    tables = aws.client("ec2").describe_route_tables()["RouteTables"]
    found = {}
    for table in tables:
        targets = [
            route.get("NatGatewayId") or route.get("GatewayId")
            for route in table["Routes"]
            if route.get("DestinationCidrBlock") == "0.0.0.0/0"
        ]
        for association in table["Associations"]:
            if association.get("SubnetId") in subnet_ids:
                found[association["SubnetId"]] = targets[0] if targets else None
    return found


def ingress(aws, group):
    """Return groups and ports that a security group lets in."""
    (found,) = aws.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return [(pair["GroupId"], rule["FromPort"]) for rule in found["IpPermissions"] for pair in rule["UserIdGroupPairs"]]


def look_at_inputs(number, aws, deployment, existing):
    """See in the emulator what AWS would then have."""
    outputs = deployment.outputs()
    (
        look_at_endpoints_and_tasks,
        look_at_boundary_and_logs,
        look_at_shared_network,
        look_at_public_workers,
        look_at_zones_and_repository,
    )[number](aws, outputs, existing)


def look_at_endpoints_and_tasks(aws, outputs, existing):
    ec2, ecs = aws.client("ec2"), aws.client("ecs")
    assert set(ways_out(aws, outputs["subnet_ids"]).values()) == {None}
    endpoints = [each for each in ec2.describe_vpc_endpoints()["VpcEndpoints"] if each["State"] != "deleted"]
    services = {each["ServiceName"].removeprefix(f"com.amazonaws.{aws.region}.") for each in endpoints}
    needed = ("dynamodb", "ecr.api", "ecr.dkr", "logs", "s3", "scheduler", "secretsmanager", "sns", "sqs", "ssm")
    assert services == set(needed)
    assert ingress(aws, outputs["endpoints_security_group_id"]) == [(outputs["workers_security_group_id"], 443)]
    (arn, *_) = ecs.list_task_definitions(familyPrefix="acme-jobs-staging-high")["taskDefinitionArns"]
    worker, sidecar = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]["containerDefinitions"]
    bucket, parameter = "acme-jobs-staging-invoices", f"arn:aws:ssm:{aws.region}:123456789012:parameter/orders/database"
    assert {"name": "INVOICES_BUCKET", "value": bucket} in worker["environment"]
    assert {"name": "ORDERS_DATABASE", "valueFrom": parameter} in worker["secrets"]
    assert (sidecar["name"], sidecar["essential"]) == ("collector", False)
    assert sidecar["logConfiguration"] == worker["logConfiguration"]
    role = f"acme-jobs-staging-{aws.region}-execute"
    policy = aws.client("iam").get_role_policy(RoleName=role, PolicyName="read-task-secrets")["PolicyDocument"]
    assert [statement["Resource"] for statement in policy["Statement"]] == [parameter]
    alarms = [alarm for alarm in aws.client("cloudwatch").describe_alarms()["MetricAlarms"] if alarm["OKActions"]]
    actions = [sorted(alarm["AlarmActions"]) for alarm in alarms]
    assert actions and actions == [sorted([existing["topic"], outputs["alarm_topic_arn"]])] * len(actions)
    worker, producer = (
        aws.assume(outputs["credentials"]),
        aws.somebody_with(outputs["policy_arns"]["producer"], "another-producer"),
    )
    aws.enforce(True)
    try:
        mine = aws.client("s3", worker)
        mine.put_object(Bucket=bucket, Key="1", Body=b"x")
        assert denied(mine.delete_object, Bucket=bucket, Key="1")
        assert denied(aws.client("s3", producer).put_object, Bucket=bucket, Key="2", Body=b"x")
    finally:
        aws.enforce(False)
    aws.client("s3").delete_object(Bucket=bucket, Key="1")


def look_at_boundary(aws, existing, least):
    """See that every role and user is limited, and those of the pipelines too."""
    iam = aws.client("iam")
    roles = [iam.get_role(RoleName=role["RoleName"])["Role"] for role in iam.list_roles()["Roles"]]
    users = [iam.get_user(UserName=user["UserName"])["User"] for user in iam.list_users()["Users"]]
    limited = [each for each in roles + users if "acme-jobs-staging-" in each["Arn"]]
    assert len(limited) >= least
    for each in limited:
        assert each["PermissionsBoundary"]["PermissionsBoundaryArn"] == existing["boundary"], each["Arn"]


def user_data(aws):
    """Return the user data of all instances that would be started, by launch template."""
    ec2 = aws.client("ec2")
    found = {}
    for template in ec2.describe_launch_templates()["LaunchTemplates"]:
        versions = ec2.describe_launch_template_versions(LaunchTemplateId=template["LaunchTemplateId"])
        newest = versions["LaunchTemplateVersions"][-1]["LaunchTemplateData"]
        found[template["LaunchTemplateName"]] = b64decode(newest["UserData"]).decode()
    assert found.keys() - {"acme-jobs-staging-Beat"} == {"acme-jobs-staging-high", "acme-jobs-staging-low"}
    return found


def look_at_boundary_and_logs(aws, outputs, existing):
    look_at_boundary(aws, existing, 4)
    (group,) = aws.client("logs").describe_log_groups(logGroupNamePrefix="/acme-jobs/staging/workers")["logGroups"]
    assert group["retentionInDays"] == 60
    for data in user_data(aws).values():
        assert "LOG_LEVEL=DEBUG" in data
    ways = ways_out(aws, outputs["subnet_ids"])
    assert len(ways) == 2
    (gateway,) = set(ways.values())
    (nat,) = aws.client("ec2").describe_nat_gateways(NatGatewayIds=[gateway])["NatGateways"]
    assert ways_out(aws, [nat["SubnetId"]])[nat["SubnetId"]].startswith("igw-")


def look_at_shared_network(aws, outputs, existing):
    ec2, workers = aws.client("ec2"), outputs["workers_security_group_id"]
    assert (outputs["vpc_id"], outputs["subnet_ids"]) == (existing["vpc"], existing["subnets"])
    assert [vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]] == [existing["vpc"]]
    assert ec2.describe_vpc_endpoints()["VpcEndpoints"] == ec2.describe_nat_gateways()["NatGateways"] == []
    assert ingress(aws, existing["group"]) == [(workers, 443)]
    (group,) = ec2.describe_security_groups(GroupIds=[workers])["SecurityGroups"]
    assert group["VpcId"] == existing["vpc"]
    out = {
        (rule["FromPort"], *(pair["GroupId"] for pair in rule["UserIdGroupPairs"]))
        for rule in group["IpPermissionsEgress"]
    }
    assert {(443,), (5432, existing["group"])} <= out
    for each in aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]:
        assert sorted(each["VPCZoneIdentifier"].split(",")) == sorted(existing["subnets"])
    secret = aws.client("secretsmanager").describe_secret(SecretId="acme-jobs-staging-own")["ARN"]
    for data in user_data(aws).values():
        assert f"OWN={secret}" in data


def look_at_public_workers(aws, outputs, existing):
    ec2, ecs = aws.client("ec2"), aws.client("ecs")
    look_at_boundary(aws, existing, 5)
    ways = ways_out(aws, outputs["subnet_ids"])
    assert len(ways) == 2 and all(way.startswith("igw-") for way in ways.values())
    assert ec2.describe_nat_gateways()["NatGateways"] == []
    services = ecs.describe_services(cluster="acme-jobs-staging", services=["high", "low"])["services"]
    for service in services:
        network = service["networkConfiguration"]["awsvpcConfiguration"]
        assert network["assignPublicIp"] == "ENABLED"
        assert network["securityGroups"] == [outputs["workers_security_group_id"]]
    assert len(services) == 2 and ingress(aws, outputs["workers_security_group_id"]) == []


def look_at_zones_and_repository(aws, outputs, existing):
    ec2, ecr = aws.client("ec2"), aws.client("ecr")
    ways = ways_out(aws, outputs["subnet_ids"])
    zones = {subnet["SubnetId"]: subnet["AvailabilityZone"] for subnet in ec2.describe_subnets()["Subnets"]}
    gateways = {
        gateway["NatGatewayId"]: zones[gateway["SubnetId"]] for gateway in ec2.describe_nat_gateways()["NatGateways"]
    }
    assert len(set(ways.values())) == 2
    assert {subnet: gateways[way] for subnet, way in ways.items()} == {subnet: zones[subnet] for subnet in ways}
    assert [each["repositoryName"] for each in ecr.describe_repositories()["repositories"]] == ["shared/jobs"]
    for data in user_data(aws).values():
        assert f"IMAGE={existing['repository']}:1" in data
    role = f"acme-jobs-staging-{aws.region}-workers"
    iam = aws.client("iam")
    policies = [
        iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    ]
    pulled = [each["Resource"] for policy in policies for each in policy["Statement"] if each.get("Sid") == "PullImage"]
    assert pulled == [f"arn:aws:ecr:{aws.region}:123456789012:repository/shared/jobs"]


def refuse_to_destroy(deployment, aws):
    """Let nothing be destroyed that is protected, nor without the environment's name."""
    add_data(aws)
    there = everything_in(aws)
    confirmed = "acme-jobs-staging\n"
    assert "set protect_data = false in" in deployment.make("destroy", status=2, stdin=confirmed)
    deployment.protect(False)
    assert "not destroyed" in deployment.make("destroy", status=2, stdin="staging\n")
    assert "not destroyed" in deployment.make("destroy", status=2)
    assert everything_in(aws) == there


def delete_what_is_left(deployment, aws):
    """Delete roles and bucket as docs/deleting.md says."""
    delete_roles, delete_bucket = blocks_of(deployment.folder, "What is left", page="deleting")
    deployment.environment = clean_environment(**aws.environment(aws.owner))
    deployment.follow(delete_roles.replace("<owner>/<name>", REPOSITORY), stdin="yes\n")
    deployment.follow(delete_bucket)
    assert aws.client("s3").list_buckets()["Buckets"] == []
    names = [role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]]
    assert [name for name in names if name.endswith(("-plan", "-deploy"))] == []


def move_what_was_made_before_the_chassis(deployment):
    """Let the state have everything in the root, as it was then, and do what docs/updating.md says.

    Nothing of it is applied: the emulator cannot update all of it. The state is as before in the end.
    """
    state = json.loads(deployment.run("state", "pull"))
    known = {**state, "serial": state["serial"] + 1, "resources": [dict(each) for each in state["resources"]]}
    for resource in known["resources"]:
        assert resource.pop("module") == "module.service"
    deployment.run("state", "push", "-", stdin=json.dumps(known).replace("module.service.", ""))
    undo_moves(deployment)
    page = (TEMPLATE / "docs" / "updating.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(make deployed .*?)^```", page, re.MULTILINE | re.DOTALL)
    deployment.follow(commands)
    plan = json.loads(deployment.run("show", "-json", "staging.tfplan"))
    changes = [change for change in plan["resource_changes"] if change["mode"] == "managed"]
    assert {change["address"] for change in changes if {"create", "delete"} & set(change["change"]["actions"])} == set()
    assert all(change["address"].startswith("module.service.") for change in changes)
    assert not any(change["previous_address"].startswith("module.") for change in changes)
    (deployment.terraform / "moved.tf").unlink()
    deployment.run("state", "push", "-force", "-", stdin=json.dumps({**state, "serial": state["serial"] + 1000}))


def undo_moves(deployment):
    """Give resources the addresses that they had before the module's own `moved` blocks."""
    files = (deployment.folder / SERVICE).glob("*.tf")
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    moves = re.findall(r"^moved {\n  from = (.+)\n  to   = (.+)\n}", text, re.MULTILINE)
    assert len(moves) == text.count("\nmoved {")
    there = deployment.run("state", "list").splitlines()
    for before, after in moves:
        if any(address == after or address.startswith(f"{after}[") for address in there):
            deployment.run("state", "mv", after, before)


class Deployment:
    """A project's Terraform at work on the emulator."""

    def __init__(self, folder, aws):
        self.folder, self.terraform = folder, folder / "terraform"
        self.environment = clean_environment(**aws.environment(aws.owner))
        self.keep_state()

    def keep_state(self):
        """Keep the state in a file."""
        (self.terraform / "test_override.tf").write_text(EMULATED + LOCAL_STATE)
        (self.terraform / "environments" / "staging.s3.tfbackend").write_text("")

    def make(self, target, status=0, stdin="", **more):
        environment = {**self.environment, **more, "MAKEFLAGS": ""}
        return run("make", target, "ENV=staging", cwd=self.folder, environment=environment, status=status, stdin=stdin)

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
        """Let a bare `terraform destroy` destroy queues and broker; tests work on copies of a project."""
        for file in (self.folder / SERVICE).glob("*.tf"):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("prevent_destroy = true", "prevent_destroy = false"), encoding="utf-8")

    def protect(self, protected):
        """Set whether data is protected in staging."""
        values = self.terraform / "environments" / "staging.tfvars"
        text = values.read_text(encoding="utf-8")
        assert text.count("\nprotect_data ") == 1
        values.write_text(re.sub(r"(?m)^(protect_data +=) \w+$", rf"\1 {str(protected).lower()}", text))

    def destroy(self):
        self.make("destroy", stdin="acme-jobs-staging\n", TF_CLI_ARGS_destroy="-parallelism=40")
        assert self.run("state", "list") == ""
        assert list((self.folder / SERVICE).glob("*_override.tf")) == []


REPOSITORY = "acme@1/jobs@2"


def knows_names(statement):
    """Tell whether the emulator decides by a resource's name; mostly it does by the action alone."""
    actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    return all(action.startswith(("dynamodb:", "ec2:", "s3:", "sqs:")) for action in actions)


def unnamed(statement):
    """Return a statement without names and conditions, of which the emulator knows none."""
    return {"Effect": "Allow", "Action": statement["Action"], "Resource": "*"}


class Pipeline(Deployment):
    """A deployment by the roles of GitHub's jobs; names that the emulator does not know are compared with the state."""

    def __init__(self, folder, aws, boundary=""):
        super().__init__(folder, aws)
        (folder / "chassis" / "terraform" / "pipeline" / "test_override.tf").write_text(EMULATED)
        aws.client("iam").create_open_id_connect_provider(
            Url="https://token.actions.githubusercontent.com", ClientIDList=["sts.amazonaws.com"]
        )
        self.make("pipeline", REPOSITORY=REPOSITORY, BOUNDARY=boundary, TF_CLI_ARGS_apply="-auto-approve")
        self.aws, self.policies, self.roles = aws, {}, {}
        for name in ("plan", "deploy"):
            role = f"acme-jobs-staging-{aws.region}-{name}"
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

    def keep_state(self):
        """Follow the README, which asks before it makes the bucket."""
        for root in (self.terraform, self.folder / "chassis" / "terraform" / "bootstrap"):
            (root / "test_override.tf").write_text(EMULATED)
        self.make("bootstrap", TF_CLI_ARGS_apply="-auto-approve")
        backend = self.terraform / "environments" / "staging.s3.tfbackend"
        backend.write_text(backend.read_text() + "use_path_style = true\n")

    @contextmanager
    def as_role(self, name):
        """Be one of the roles, with IAM switched on; the plan's cannot lock the state."""
        before, lock = self.environment, {"TF_CLI_ARGS_plan": "-lock=false"} if name == "plan" else {}
        self.environment = clean_environment(**self.aws.environment(self.roles[name]), **lock)
        self.aws.enforce(True)
        try:
            yield
        finally:
            self.aws.enforce(False)
            self.environment = before

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


def add_data(aws):
    """Put something into every bucket and repository of the service; what is in an owner's is not ours to delete."""
    s3, ecr = aws.client("s3"), aws.client("ecr")
    for bucket in s3.list_buckets()["Buckets"]:
        if bucket["Name"].endswith("-invoices"):
            continue
        s3.put_object(Bucket=bucket["Name"], Key="results/celery-task-meta-1", Body=b"{}")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": {"digest": f"sha256:{'0' * 64}"}, "layers": []}
    ecr.put_image(repositoryName="acme-jobs-staging", imageManifest=json.dumps(manifest), imageTag="1")


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
        "gateways": [
            gateway
            for gateway in aws.client("ec2").describe_nat_gateways()["NatGateways"]
            if gateway["State"] != "deleted"
        ],
        "addresses": aws.client("ec2").describe_addresses()["Addresses"],
        "caches": aws.client("elasticache").describe_replication_groups()["ReplicationGroups"],
        "brokers": aws.client("mq").list_brokers()["BrokerSummaries"],
        "alarms": aws.client("cloudwatch").describe_alarms()["MetricAlarms"],
        "topics": aws.client("sns").list_topics()["Topics"],
        "logs": aws.client("logs").describe_log_groups()["logGroups"],
        "images": aws.client("ecr").describe_repositories()["repositories"],
        "secrets": aws.client("secretsmanager").list_secrets()["SecretList"],
    }
    ours = ("the-producer", "the-operator", "the-operator-of-flower", "another-producer", "somebody-elses")
    return {
        kind: left
        for kind, things in found.items()
        if (
            left := [thing for thing in things if not str(thing).endswith(ours) and "-staging-state-" not in str(thing)]
        )
    }


# A queue that leaves the contract.


def blocks_of(folder, heading, language="sh", page="operations"):
    """Return the blocks of a section of a page of docs/."""
    text = (folder / "docs" / f"{page}.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [block.replace("\n   ", "\n") for block in re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)]


def queues_at(aws):
    return {url.rpartition("/")[2] for url in aws.client("sqs").list_queues().get("QueueUrls", [])}


def queues_in(deployment):
    return {line for line in deployment.run("state", "list").splitlines() if ".aws_sqs_queue." in line}


def remove_first_queue(contract):
    """Remove a queue, and its worker, which serves no other."""
    contract["queues"].pop(0)
    contract["workers"].pop(0)


def rename_first_queue(contract):
    contract["queues"][0].update(name="renamed")
    contract["workers"][0].update(queues=["renamed"])


@pytest.mark.slow
def test_queue_removed_from_the_contract_is_not_destroyed(project, tmp_path):
    folder = project(broker="sqs-fifo", results="none", queues="high, low")
    _, forget, delete = blocks_of(folder, "Removing or renaming a queue")
    (bring_back,) = blocks_of(folder, "Removing or renaming a queue", "hcl")
    forget_group, delete_group = blocks_of(folder, "Turning long delays off", page="schedules")
    contract = (folder / "contract.json").read_text(encoding="utf-8")
    pass_own_network(folder / "terraform")  # The quickest to create.
    with emulator(folder, tmp_path / "emulator.log") as aws:
        deployment = Deployment(folder, aws)
        edit_contract(folder, lambda contract: contract.update(long_delays=True))
        deployment.apply()
        (folder / "contract.json").write_text(contract, encoding="utf-8")
        variables = ("-no-color", "-var-file=environments/staging.tfvars", "-var=image_tag=1")
        said = deployment.run("plan", *variables, status=1)
        assert "docs/schedules.md says how to turn long delays off" in said
        deployment.follow(forget_group)
        groups = {group["Name"] for group in aws.client("scheduler").list_schedule_groups()["ScheduleGroups"]}
        assert "acme-jobs-staging-delayed" in groups
        deployment.follow(delete_group)
        groups -= {group["Name"] for group in aws.client("scheduler").list_schedule_groups()["ScheduleGroups"]}
        assert groups == {"acme-jobs-staging-delayed"}
        there, known = queues_at(aws), queues_in(deployment)
        gone = {"acme-jobs-staging-high.fifo", "acme-jobs-staging-high-dlq.fifo"}
        assert len(there - gone) == 2
        sqs = aws.client("sqs")
        high = sqs.get_queue_url(QueueName="acme-jobs-staging-high.fifo")["QueueUrl"]
        sqs.send_message(QueueUrl=high, MessageBody="x", MessageGroupId="g", MessageDeduplicationId="d")

        edit_contract(folder, remove_first_queue)
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

        edit_contract(folder, remove_first_queue)
        deployment.follow(forget)
        deployment.follow(delete)
        assert queues_at(aws) == there - gone

        # A queue with another name is another queue, and `terraform destroy` would delete all of them.
        edit_contract(folder, rename_first_queue)
        for refused in (("plan",), ("destroy", "-auto-approve")):
            assert "Instance cannot be destroyed" in deployment.run(*refused, *variables, status=1)
        assert queues_at(aws) == there - gone
        deployment.destroy()
        assert queues_at(aws) == set()


# Queues that exist already.


def create_queues_by_hand(aws):
    """Create queues with attributes of their own, of which a FIFO one has no dead-letter queue; return their URLs."""
    sqs, urls = aws.client("sqs"), {}
    for name, attributes in (
        ("legacy_high-staging", {"VisibilityTimeout": "900", "MessageRetentionPeriod": "400000", "DelaySeconds": "0"}),
        ("partners", {"VisibilityTimeout": "45", "MaximumMessageSize": "2048", "DelaySeconds": "3"}),
    ):
        own = {"MessageRetentionPeriod": "1000000"}
        dead = sqs.create_queue(QueueName=f"{name}-old-dead", Attributes=own)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 7})
        attributes = {**attributes, "RedrivePolicy": policy}
        urls[name] = sqs.create_queue(QueueName=name, Attributes=attributes, tags={"Team": "old"})["QueueUrl"]
        urls[f"{name}-old-dead"] = dead
    kind = {"FifoQueue": "true", "ContentBasedDeduplication": "true", "VisibilityTimeout": "700"}
    urls["orders.fifo"] = sqs.create_queue(QueueName="orders.fifo", Attributes=kind)["QueueUrl"]
    return urls


def all_of(aws, url):
    """Return all attributes and tags of a queue."""
    sqs = aws.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return attributes, sqs.list_queue_tags(QueueUrl=url).get("Tags", {})


def adopt(folder, aws, *queues):
    """Return what `adopt` prints: entries for the contract, and import blocks."""
    printed = command(folder, aws, aws.owner, "adopt", *queues)
    entries = [json.loads(line.rstrip(",")) for line in printed.splitlines() if line.startswith("    {")]
    return entries, printed[printed.find("import {") :] + "\n"


@pytest.mark.slow
def test_adopted_queues_when_applied_then_keep_names_and_messages(project, tmp_path):
    folder = project(results="none", queues="high")
    with emulator(folder, tmp_path / "emulator.log") as aws:
        sqs, urls = aws.client("sqs"), create_queues_by_hand(aws)
        for name in ("legacy_high-staging", "legacy_high-staging-old-dead"):
            sqs.send_message(QueueUrl=urls[name], MessageBody=f"sent to {name}")
        sqs.send_message(QueueUrl=urls["orders.fifo"], MessageBody="in order", MessageGroupId="g")
        theirs = [all_of(aws, urls[name]) for name in ("partners", "partners-old-dead")]

        managed, blocks = adopt(folder, aws, "legacy_high-staging", "orders.fifo")
        (unmanaged,), _ = adopt(folder, aws, "partners")
        unmanaged.update(managed=False, visibility_timeout_seconds=660)
        edit_contract(folder, lambda contract: contract.update(queues=[*managed, unmanaged], workers=[]))
        RULES.read(folder / "contract.json")
        high, orders = (queue["name"] for queue in managed)
        (folder / "terraform" / "import.tf").write_text(blocks, encoding="utf-8")
        run("terraform", "fmt", "-check", "import.tf", cwd=folder / "terraform")

        pass_own_network(folder / "terraform")
        deployment = Deployment(folder, aws)
        deployment.make("plan", TAG="1")
        changes = json.loads(deployment.run("show", "-json", "staging.tfplan"))["resource_changes"]
        assert [each["address"] for each in changes if "delete" in each["change"]["actions"]] == []
        queues = {each["address"].removeprefix("module.service.aws_sqs_queue."): each["change"] for each in changes}
        queues = {name: change for name, change in queues.items() if name.startswith(("main", "dead_letters"))}
        assert {name: change["actions"] for name, change in queues.items()} == {
            f'main["{high}"]': ["update"],
            f'dead_letters["{high}"]': ["update"],
            f'main["{orders}"]': ["update"],
            f'dead_letters["{orders}"]': ["create"],
        }
        assert [name for name, change in queues.items() if "importing" not in change] == [f'dead_letters["{orders}"]']
        deployment.make("apply", TF_CLI_ARGS_apply="-parallelism=40")
        (folder / "terraform" / "import.tf").unlink()
        assert deployment.changes() <= READ_BACK_WRONG

        assert queues_at(aws) == {*urls, "orders-dlq.fifo"}
        assert [all_of(aws, urls[name]) for name in ("partners", "partners-old-dead")] == theirs
        kept, tags = all_of(aws, urls["legacy_high-staging"])
        assert (kept["VisibilityTimeout"], kept["MessageRetentionPeriod"]) == ("900", "400000")
        policy = json.loads(kept["RedrivePolicy"])
        assert policy["deadLetterTargetArn"].endswith(":legacy_high-staging-old-dead")
        assert (policy["maxReceiveCount"], tags["Environment"]) == (7, "staging")
        ordered, _ = all_of(aws, urls["orders.fifo"])
        assert json.loads(ordered["RedrivePolicy"])["deadLetterTargetArn"].endswith(":orders-dlq.fifo")
        assert (ordered["ContentBasedDeduplication"], ordered["DeduplicationScope"]) == ("true", "messageGroup")
        for name, body in (
            ("legacy_high-staging", "sent to legacy_high-staging"),
            ("legacy_high-staging-old-dead", "sent to legacy_high-staging-old-dead"),
            ("orders.fifo", "in order"),
        ):
            (message,) = sqs.receive_message(QueueUrl=urls[name])["Messages"]
            assert message["Body"] == body


# What workers, senders and operators can do with their own rights.


def use_with_own_rights(answers, folder, aws, deployment, tmp_path):
    """Send, work, fail, dead-letter and redrive, with IAM switched on."""
    outputs = deployment.outputs()
    queues = {
        name: {kind: aws.client("sqs").get_queue_url(QueueName=queue)["QueueUrl"] for kind, queue in both.items()}
        for name, both in outputs["queues"].items()
    }
    other = aws.client("sqs").create_queue(QueueName="somebody-elses")["QueueUrl"]
    producer = aws.somebody_with(outputs["policy_arns"]["producer"], "the-producer")
    operator = aws.somebody_with(outputs["policy_arns"]["operator"], "the-operator")
    worker = rotated_key(deployment, aws) if answers["credentials"] == "keys" else aws.assume(outputs["credentials"])
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
        delays_work(folder, aws, send, producer, worker, operator)
        control_works(aws, environment["CONTROL_TABLE"], producer, worker, operator)
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
    worker = rotated_key(deployment, aws) if answers["credentials"] == "keys" else aws.assume(outputs["credentials"])
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
        aws_commands_work_for(operator, folder, aws, blocks=7)
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


def delays_work(folder, aws, send, producer, worker, operator):
    """Delay a task for days, and cancel it; producers and workers may do no more with schedules."""
    task_id = send(
        "from acme_jobs.celery import app\n"
        "sent = app.send_task('library.probes.stay', ['/tmp', 0], queue='low', countdown=10**6, MessageGroupId='g')\n"
        "print(sent.id)"
    )
    schedules, group = aws.client("scheduler", operator), "acme-jobs-staging-delayed"
    (listed,) = schedules.list_schedules(GroupName=group)["Schedules"]
    made = schedules.get_schedule(Name=listed["Name"], GroupName=group)
    target = {name: made["Target"][name] for name in ("Arn", "RoleArn", "Input", "DeadLetterConfig")}
    dead_letters = target["DeadLetterConfig"]["Arn"].rpartition(":")[2]
    assert aws.client("sqs", operator).get_queue_url(QueueName=dead_letters)
    aws.enforce(False)
    role = aws.client("iam").get_role(RoleName=target["RoleArn"].rpartition("/")[2])["Role"]
    aws.enforce(True)
    assert role["Arn"] == target["RoleArn"]
    new = {"Name": "x", "ScheduleExpression": "at(2099-01-01T00:00:00)", "FlexibleTimeWindow": {"Mode": "OFF"}}
    for identity in (producer, worker):
        own = aws.client("scheduler", identity)
        own.create_schedule(**new, GroupName=group, Target=target)
        schedules.delete_schedule(Name="x", GroupName=group)
        assert denied(own.create_schedule, **new, GroupName="acme-jobs-staging", Target=target)
        assert denied(own.delete_schedule, Name=listed["Name"], GroupName=group)
        assert denied(own.list_schedules)
    assert denied(schedules.delete_schedule, Name="nightly", GroupName="acme-jobs-staging")
    assert denied(schedules.create_schedule, **new, GroupName=group, Target=target)
    (nightly, off) = json.loads(command(folder, aws, operator, "schedules", "list", "--json"))
    assert (nightly["at_aws"], off["at_aws"]) == ("enabled, cron(30 6 ? * 2,3,4,5,6 *)", "disabled, rate(5 minutes)")
    command(folder, aws, operator, "delayed", "list")
    command(folder, aws, operator, "delayed", "cancel", task_id)
    command(folder, aws, operator, "delayed", "unsent")
    assert schedules.list_schedules(GroupName=group)["Schedules"] == []


def control_works(aws, table, producer, *others):
    """Write to, read and clear the table of remote control; nobody may do more with it, or this with another.

    Args:
        aws: the emulated AWS.
        table: name of the table.
        producer: an identity that may only write.
        others: those of a worker and an operator.
    """
    item = {name: {"S": name} for name in ("scope", "key")}
    scope = {"AttributeNames": {"#scope": "scope"}, "AttributeValues": {":scope": item["scope"]}}
    query = {"KeyConditionExpression": "#scope = :scope", **{f"Expression{name}": each for name, each in scope.items()}}
    writing = aws.client("dynamodb", producer)
    assert denied(writing.query, TableName=table, **query)
    assert denied(writing.delete_item, TableName=table, Key=item)
    for identity in (producer, *others):
        dynamodb = aws.client("dynamodb", identity)
        dynamodb.put_item(TableName=table, Item=item)
        assert denied(dynamodb.put_item, TableName="acme-jobs-production-control", Item=item)
        assert denied(dynamodb.scan, TableName=table)
        assert denied(dynamodb.update_item, TableName=table, Key=item)
        assert denied(dynamodb.delete_table, TableName=table)
    for identity in others:
        dynamodb = aws.client("dynamodb", identity)
        dynamodb.put_item(TableName=table, Item=item)
        assert dynamodb.query(TableName=table, **query)["Items"] == [item]
        dynamodb.delete_item(TableName=table, Key=item)
        assert dynamodb.query(TableName=table, **query)["Items"] == []
        assert denied(dynamodb.query, TableName="acme-jobs-production-control", **query)


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


def aws_commands_work_for(operator, folder, aws, blocks=5):
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


def rotated_key(deployment, aws):
    """Rotate the worker's key twice, as the README says, and return the stored one."""

    def keys(step, status=0):
        return command(deployment.folder, aws, aws.owner, "keys", step, status=status)

    keys("rotate")
    keys("finish")
    keys("rotate")
    keys("rotate", status=2)  # IAM allows two keys.
    assert "deleted: " in keys("finish")
    assert (
        len(aws.client("iam").list_access_keys(UserName="acme-jobs-staging-eu-west-1-worker")["AccessKeyMetadata"]) == 1
    )
    secret = aws.client("secretsmanager").get_secret_value(SecretId="acme-jobs-staging-worker")["SecretString"]
    state = deployment.run("state", "pull")
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
