"""What differs between environments, read from environment variables and checked at once.

The chosen broker, credentials and result store bring their own variables with them.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .broker import BrokerEnvironment
from .credentials import CredentialsEnvironment
from .errors import SettingsError
from .results import ResultsEnvironment


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


def read_settings(kind: type[Some]) -> Some:
    """Read environment variables: those that an option brings, or all of a service's `Settings`.

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
