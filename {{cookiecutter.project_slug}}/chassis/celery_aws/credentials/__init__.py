"""Credentials: of an IAM role boto3 finds them by itself and renews them in time; access keys are variables."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from .. import options
from ..contract import Contract


def variables(contract: Contract) -> tuple[type[BaseSettings], ...]:
    """Return the environment variables that a service needs for its credentials; none where it has a role."""
    return (options.load(__name__, contract.credentials).Variables,) if contract.credentials == "keys" else ()
