"""`keys`: create, store and rotate the access key of the service's IAM user without showing it.

The command copies a key from IAM to Secrets Manager, from where workers read it when they start.
Terraform creates the user and the secret, but not the key, which would be in its state.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

import click

from ..commands import Failure
from ..durations import age
from ..environment import find
from ..terminal import FOUND, Group, console, live_options, plain, say, table

OLD_DAYS = 90
"""Maximum age of a key."""
TIMEOUT_SECONDS = 60
"""Timeout for a new key to become valid, which usually takes some seconds."""


@click.group(name="keys", cls=Group)
def command() -> None:
    """List, rotate or clean up access keys."""


class User:
    """The workers' IAM user, and the secret with its access key."""

    def __init__(self, environment: str) -> None:
        env = find(environment)
        self.region = env.contract.region
        self.name = f"{env.contract.service}-{environment}-{self.region}-worker"
        """Name of the user, and below that of the secret; see terraform/service/identity_keys.tf."""
        self.secret = f"{env.contract.service}-{environment}-worker"
        self.iam: Any = env.client("iam")
        self.secrets: Any = env.client("secretsmanager")

    def known(self) -> list[dict[str, Any]]:
        """Return the user's keys in IAM, oldest first."""
        try:
            found = self.iam.list_access_keys(UserName=self.name)["AccessKeyMetadata"]
        except self.iam.exceptions.NoSuchEntityException:
            raise Failure(f"there is no IAM user {self.name}; check --environment, or apply Terraform") from None
        return sorted(found, key=lambda key: key["CreateDate"])

    def stored(self) -> str:
        """Return the id of the key in the secret; empty if it has no key."""
        try:
            secret = json.loads(self.secrets.get_secret_value(SecretId=self.secret).get("SecretString", ""))
        except (self.secrets.exceptions.ResourceNotFoundException, ValueError):
            return ""
        return str(secret.get("AWS_ACCESS_KEY_ID", "")) if isinstance(secret, dict) else ""


@command.command("list", examples=("keys list --environment staging",))
@live_options
def list_(environment: str, as_json: bool) -> None:
    """List the keys with age, last use and whether they are stored.

    Exits with 1 if a key is older than 90 days, if there are two keys, or if the key is not stored.
    """
    user = User(environment)
    stored = user.stored()
    found = []
    for key in user.known():
        used = user.iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
        found.append(
            {
                "id": key["AccessKeyId"],
                "status": key["Status"],
                "age_seconds": round(_ago(key["CreateDate"])),
                "used_seconds_ago": round(_ago(used["LastUsedDate"])) if "LastUsedDate" in used else None,
                "stored": key["AccessKeyId"] == stored,
            }
        )
    if as_json:
        click.echo(json.dumps(found))
    else:
        made = table()
        for title in ("KEY", "STATUS", "AGE", "LAST USED", "STORED"):
            made.add_column(title)
        for each in found:
            last = each["used_seconds_ago"]
            used_ago = "never" if last is None else f"{age(float(last))} ago"
            is_stored = "yes" if each["stored"] else "no"
            made.add_row(plain(each["id"]), each["status"], age(float(each["age_seconds"])), used_ago, is_stored)
        console().print(made if found else f"{user.name} has no key; `keys rotate` creates one")
    old = any(float(each["age_seconds"]) > OLD_DAYS * 86_400 for each in found)
    raise SystemExit(FOUND if old or len(found) != 1 or not found[0]["stored"] else 0)


@command.command(examples=("keys rotate --environment staging",))
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@live_options
def rotate(dry_run: bool, environment: str, as_json: bool) -> None:
    """Create a key, test it and store it.

    The old key stays valid until `keys finish`. Afterwards restart the workers, which read the key when they start.
    """
    user = User(environment)
    if len(user.known()) > 1:
        raise Failure(f"{user.name} already has two keys, IAM's maximum; `keys finish` deletes the old one")
    if dry_run:
        say(as_json, f"would create a key of {user.name} and store it in the secret {user.secret}", made=None)
        return
    key = user.iam.create_access_key(UserName=user.name)["AccessKey"]
    try:
        _wait_until_valid(key, user.region)
        secret = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        user.secrets.put_secret_value(SecretId=user.secret, SecretString=json.dumps(secret))
    except BaseException:
        # The key is not stored, so nothing can use it.
        user.iam.delete_access_key(UserName=user.name, AccessKeyId=key["AccessKeyId"])
        raise
    text = f"{key['AccessKeyId']} is stored; restart the workers, then `keys finish`"
    say(as_json, text, made=key["AccessKeyId"])


@command.command(examples=("keys finish --environment staging",))
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@live_options
def finish(dry_run: bool, environment: str, as_json: bool) -> None:
    """Delete all keys except the stored one.

    Restart all workers before. `keys list` shows whether the old key is still in use.
    """
    user = User(environment)
    keys = [key["AccessKeyId"] for key in user.known()]
    stored = user.stored()
    if stored not in keys:
        raise Failure(f"the stored key is not a key of {user.name}; nothing was deleted")
    old = [key for key in keys if key != stored]
    for key in () if dry_run else old:
        user.iam.delete_access_key(UserName=user.name, AccessKeyId=key)
    what = "would be deleted" if dry_run else "deleted"
    say(as_json, f"{what}: {', '.join(old) or 'nothing'}", deleted=[] if dry_run else old)


def _wait_until_valid(key: dict[str, str], region: str) -> None:
    """Wait until AWS accepts a new key.

    Raises:
        botocore.exceptions.ClientError: AWS did not accept it within `TIMEOUT_SECONDS`.
    """
    import boto3
    from botocore.exceptions import ClientError

    sts = boto3.client(
        "sts",
        region_name=region,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    end = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            sts.get_caller_identity()
            return
        except ClientError:
            if time.monotonic() > end:
                raise
            time.sleep(2)


def _ago(when: datetime) -> float:
    return (datetime.now(timezone.utc) - when).total_seconds()
