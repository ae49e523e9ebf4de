"""`keys` on the emulator: an access key is made, stored and replaced, and its secret is shown nowhere."""

from __future__ import annotations

import json

import pytest

from library.commands import Commands
from library.support import CONTRACT

pytestmark = pytest.mark.end_to_end

NAME = f"{CONTRACT['service']}-development-{CONTRACT['region']}-worker"
SECRET = f"{CONTRACT['service']}-development-worker"


@pytest.fixture(scope="module")
def quiet(quiet):
    """A service without a worker, whose user and secret are there as Terraform makes them."""
    quiet.client("iam").create_user(UserName=NAME)
    quiet.client("secretsmanager").create_secret(Name=SECRET)
    return quiet


def stored(service):
    return json.loads(service.client("secretsmanager").get_secret_value(SecretId=SECRET)["SecretString"])


def ids(service):
    return {key["AccessKeyId"] for key in service.client("iam").list_access_keys(UserName=NAME)["AccessKeyMetadata"]}


def test_a_key_is_made_replaced_and_deleted(quiet):
    commands = Commands(quiet)
    assert "has no key" in commands.run("keys", "list", status=1)
    commands.run("keys", "rotate", "--dry-run")
    assert ids(quiet) == set()
    said = commands.run("keys", "rotate")
    first = stored(quiet)
    assert ids(quiet) == {first["AWS_ACCESS_KEY_ID"]}
    assert first["AWS_SECRET_ACCESS_KEY"] not in said + commands.errors
    assert "yes" in commands.run("keys", "list")
    commands.run("keys", "rotate")
    second = stored(quiet)
    assert ids(quiet) == {first["AWS_ACCESS_KEY_ID"], second["AWS_ACCESS_KEY_ID"]}
    assert len(json.loads(commands.run("keys", "list", "--json", status=1))) == 2
    commands.run("keys", "rotate", status=2)
    assert "already has two keys" in commands.errors
    assert first["AWS_ACCESS_KEY_ID"] in commands.run("keys", "finish", "--dry-run")
    assert len(ids(quiet)) == 2
    assert first["AWS_ACCESS_KEY_ID"] in commands.run("keys", "finish")
    assert ids(quiet) == {second["AWS_ACCESS_KEY_ID"]}
    assert "deleted: nothing" in commands.run("keys", "finish")


def test_a_key_that_cannot_be_stored_is_deleted_again(quiet):
    commands = Commands(quiet)
    quiet.client("iam").create_user(UserName=NAME.replace("development", "staging"))
    commands.run("keys", "rotate", "--environment", "staging", status=2)
    found = quiet.client("iam").list_access_keys(UserName=NAME.replace("development", "staging"))
    assert found["AccessKeyMetadata"] == []
    quiet.client("secretsmanager").create_secret(Name=SECRET.replace("development", "staging"), SecretString="by hand")
    commands.run("keys", "list", "--environment", "staging", status=1)
    commands.run("keys", "finish", "--environment", "staging", status=2)
    assert "nothing was deleted" in commands.errors


def test_a_user_that_is_not_there_is_an_error_without_a_traceback(quiet):
    commands = Commands(quiet)
    commands.run("keys", "list", "--environment", "nowhere", status=2)
    assert "no IAM user" in commands.errors
