"""Credentials of an IAM role, which boto3 finds by itself and renews in time."""

from __future__ import annotations

from pydantic_settings import BaseSettings


class CredentialsEnvironment(BaseSettings):
    """Nothing to set: ECS hands out the task role, EC2 the instance profile.

    https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
    """
