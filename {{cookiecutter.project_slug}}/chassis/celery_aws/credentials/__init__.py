"""AWS credentials. boto3 finds and renews those of an IAM role; access keys are environment variables."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from .. import options
from ..contract import Contract


def variables(contract: Contract) -> tuple[type[BaseSettings], ...]:
    """Return the settings classes of the credentials; none for a role."""
    return (options.load(__name__, contract.credentials).Variables,) if contract.credentials == "keys" else ()
