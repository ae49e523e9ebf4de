"""Access keys of an IAM user, for workers that cannot use a role."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class Variables(BaseSettings):
    """The access key; checked when the service starts instead of failing at its first request.

    boto3 reads the same variables, so the key is not part of a broker URL, where it would need
    quoting and could be logged.
    https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
    """

    aws_access_key_id: str = Field(min_length=16, description="Access key of the service's IAM user")
    aws_secret_access_key: SecretStr = Field(min_length=1, description="Secret of that access key")
