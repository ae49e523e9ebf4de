"""`keys`: the access key of the service's IAM user, made, stored and replaced without being shown to anybody.

It goes from IAM to Secrets Manager, where the workers get it when they start. Terraform makes user and secret, and
never sees the key, which would stay in its state.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

import click

from ..commands import Failure
from ..environment import find
from ..terminal import FOUND, Group, age, console, live_options, plain, say, table

OLD_DAYS = 90
"""A key should not be older."""
PATIENCE_SECONDS = 60
"""A new key is known everywhere after some seconds."""


@click.group(name="keys", cls=Group)
def command() -> None:
    """The access key of the service's IAM user: list, rotate, finish."""


class User:
    """The IAM user that the workers act as, and the secret that holds its key."""

    def __init__(self, environment: str) -> None:
        here = find(environment)
        self.region = here.contract.region
        self.name = f"{here.contract.service}-{environment}-worker"
        """Of both: see terraform/service/identity_keys.tf."""
        self.iam: Any = here.client("iam")
        self.secrets: Any = here.client("secretsmanager")

    def known(self) -> list[dict[str, Any]]:
        """Return the keys that IAM knows, oldest first."""
        try:
            found = self.iam.list_access_keys(UserName=self.name)["AccessKeyMetadata"]
        except self.iam.exceptions.NoSuchEntityException:
            raise Failure(f"there is no IAM user {self.name}; is --environment right, and Terraform applied?") from None
        return sorted(found, key=lambda key: key["CreateDate"])

    def stored(self) -> str:
        """Return the id of the key in the secret; empty if there is none, or something else."""
        try:
            secret = json.loads(self.secrets.get_secret_value(SecretId=self.name).get("SecretString", ""))
        except (self.secrets.exceptions.ResourceNotFoundException, ValueError):
            return ""
        return str(secret.get("AWS_ACCESS_KEY_ID", "")) if isinstance(secret, dict) else ""


@command.command("list", examples=("keys list --environment staging",))
@live_options
def list_(environment: str, as_json: bool) -> None:
    """List the keys: how old they are, when they were last used, and which one is stored.

    Exits with 1 if one is older than 90 days, if there are two, or if none of them is the stored one.
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
        console().print(made if found else f"{user.name} has no key; `keys rotate` makes one")
    old = any(float(each["age_seconds"]) > OLD_DAYS * 86_400 for each in found)
    raise SystemExit(FOUND if old or len(found) != 1 or not found[0]["stored"] else 0)


@command.command(examples=("keys rotate --environment staging",))
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@live_options
def rotate(dry_run: bool, environment: str, as_json: bool) -> None:
    """Make a new key, try it, and store it; the old one stays valid until `keys finish`.

    Then restart the workers, which read it when they start.
    """
    user = User(environment)
    if len(user.known()) > 1:
        raise Failure(f"{user.name} has two keys already, the most IAM allows; `keys finish` deletes the old one")
    if dry_run:
        say(as_json, f"would make a key of {user.name} and store it in the secret of that name", made=None)
        return
    key = user.iam.create_access_key(UserName=user.name)["AccessKey"]
    try:
        _try(key, user.region)
        secret = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        user.secrets.put_secret_value(SecretId=user.name, SecretString=json.dumps(secret))
    except BaseException:
        # Nobody knows it any more, so nobody will miss it.
        user.iam.delete_access_key(UserName=user.name, AccessKeyId=key["AccessKeyId"])
        raise
    text = f"{key['AccessKeyId']} is stored; restart the workers, then `keys finish`"
    say(as_json, text, made=key["AccessKeyId"])


@command.command(examples=("keys finish --environment staging",))
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@live_options
def finish(dry_run: bool, environment: str, as_json: bool) -> None:
    """Delete every key but the stored one, once all workers have been restarted.

    `keys list` shows whether the old one is still in use.
    """
    user = User(environment)
    keys = [key["AccessKeyId"] for key in user.known()]
    stored = user.stored()
    if stored not in keys:
        raise Failure(f"the stored key is none of {user.name}'s; nothing was deleted")
    old = [key for key in keys if key != stored]
    for key in () if dry_run else old:
        user.iam.delete_access_key(UserName=user.name, AccessKeyId=key)
    what = "would be deleted" if dry_run else "deleted"
    say(as_json, f"{what}: {', '.join(old) or 'nothing'}", deleted=[] if dry_run else old)


def _try(key: dict[str, str], region: str) -> None:
    """Wait until AWS takes a new key; raise what it says if it does not."""
    import boto3
    from botocore.exceptions import ClientError

    sts = boto3.client(
        "sts",
        region_name=region,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    end = time.monotonic() + PATIENCE_SECONDS
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
