"""Access keys of an IAM user, for workers that can have no role."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class Variables(BaseSettings):
    """Both must be there when the service starts, instead of failing at its first request.

    boto3 reads the same two variables, so no key is ever written into a broker URL, where it would
    need quoting and could end in a log.
    https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
    """

    aws_access_key_id: str = Field(min_length=16, description="Access key of the service's IAM user")
    aws_secret_access_key: SecretStr = Field(min_length=1, description="Its secret")
