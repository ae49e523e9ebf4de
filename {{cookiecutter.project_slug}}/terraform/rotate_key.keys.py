"""Gives the service's IAM user a new access key: makes it, stores it, and later deletes the old one.

    python terraform/rotate_key.py staging           # then restart the workers, which read it when they start
    python terraform/rotate_key.py staging --finish  # deletes every key but the stored one

The key goes from IAM to Secrets Manager without being shown or written anywhere else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import boto3

CONTRACT = json.loads((Path(__file__).parents[1] / "contract.json").read_text(encoding="utf-8"))


def rotate(iam: Any, secrets: Any, name: str) -> str:
    """Make a key and store it; return what was done."""
    keys = iam.list_access_keys(UserName=name)["AccessKeyMetadata"]
    if len(keys) > 1:
        sys.exit(f"{name} has two keys already, the most IAM allows; --finish deletes the one that is not stored")
    key = iam.create_access_key(UserName=name)["AccessKey"]
    secret = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    try:
        secrets.put_secret_value(SecretId=name, SecretString=json.dumps(secret))
    except Exception:
        iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
        raise
    return f"{key['AccessKeyId']} is stored in the secret {name}"


def finish(iam: Any, secrets: Any, name: str) -> str:
    """Delete every key but the stored one; return what was done."""
    stored = json.loads(secrets.get_secret_value(SecretId=name)["SecretString"])["AWS_ACCESS_KEY_ID"]
    old = [key["AccessKeyId"] for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]]
    if stored not in old:
        sys.exit(f"{stored}, which is stored, is no key of {name}; nothing was deleted")
    old.remove(stored)
    for key in old:
        iam.delete_access_key(UserName=name, AccessKeyId=key)
    return f"deleted: {', '.join(old) or 'nothing'}"


def main() -> None:
    """Rotate, or finish it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment")
    parser.add_argument("--finish", action="store_true", help="delete every key but the stored one")
    arguments = parser.parse_args()
    iam = boto3.client("iam", region_name=CONTRACT["region"])
    secrets = boto3.client("secretsmanager", region_name=CONTRACT["region"])
    step = finish if arguments.finish else rotate
    print(step(iam, secrets, f"{CONTRACT['service']}-{arguments.environment}-worker"))


if __name__ == "__main__":
    main()
