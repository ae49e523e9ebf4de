"""What differs between environments, read from environment variables and checked at once.

The chosen broker, credentials and result store bring their own variables with them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .broker import BrokerEnvironment
from .credentials import CredentialsEnvironment
from .results import ResultsEnvironment


class SettingsError(ValueError):
    """Environment variables are missing or wrong; the message lists every one of them."""


class Settings(CredentialsEnvironment, ResultsEnvironment, BrokerEnvironment):
    """The environment variables of the service, by their lower-case names.

    boto3 reads some more: `AWS_ENDPOINT_URL` leads it to an emulator.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: str = Field(
        pattern=r"^[a-z][a-z0-9]{0,10}$",
        description="Which environment this is: development, staging or production, say",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severity that is logged"
    )


Some = TypeVar("Some", bound=BaseSettings)


def read_some(kind: type[Some]) -> Some:
    """Read some of the environment variables: those that an option brings, or all of `Settings`.

    Raises:
        SettingsError: variables are missing or wrong.
    """
    try:
        return kind()
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False):
            name = str(problem["loc"][0])
            about = kind.model_fields[name].description
            lines.append(f"  {name.upper()}: {problem['msg']}\n    {about}")
        raise SettingsError("environment variables do not fit:\n" + "\n".join(lines)) from None


@lru_cache(maxsize=1)
def read() -> Settings:
    """Read the environment, once per process.

    Raises:
        SettingsError: variables are missing or wrong.
    """
    return read_some(Settings)
