"""Settings that differ between environments, read from environment variables."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError


class ProducerSettings(BaseSettings):
    """The environment variables that producers need as well, in lower case.

    The broker, the credentials and the result backend have more; see `Variables` in their modules.
    boto3 reads its own as well: `AWS_ENDPOINT_URL` is the address of an emulator.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: str = Field(
        pattern=r"^[a-z][a-z0-9]{0,10}$",
        description="Name of the environment, such as development, staging or production",
    )


class Settings(ProducerSettings):
    """The environment variables of a service, in lower case. Subclass it to add the service's own."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest severity that is logged"
    )


BaseSettingsT = TypeVar("BaseSettingsT", bound=BaseSettings)


def read_settings(
    settings_class: type[BaseSettingsT], *others: type[BaseSettings], prefix: str = ""
) -> tuple[BaseSettingsT, list[Any]]:
    """Read the environment variables of several settings classes, and report all problems at once.

    Args:
        settings_class: the first class.
        others: the other classes.
        prefix: prefix of environment variables that take precedence over those without; empty for none.

    Returns:
        The instance of the first class, and a list of the other instances.

    Raises:
        SettingsError: variables are missing or invalid; all of them are listed.
    """
    instances: list[Any] = []
    lines: dict[str, None] = {}
    classes: list[type[BaseSettings]] = [settings_class, *others]
    for each in classes:
        try:
            instances.append(each(**_prefixed(each, prefix)))
        except ValidationError as error:
            for problem in error.errors(include_input=False):
                name = str(problem["loc"][0])
                lines[f"  {name.upper()}: {problem['msg']}\n    {each.model_fields[name].description}"] = None
    if lines:
        raise SettingsError("Invalid or missing environment variables:\n" + "\n".join(lines))
    return instances[0], instances[1:]


def _prefixed(settings_class: type[BaseSettings], prefix: str) -> dict[str, Any]:
    """Return the values of a settings class from environment variables with a prefix."""
    variables = {name: f"{prefix}{name.upper()}" for name in settings_class.model_fields}
    return {name: os.environ[variable] for name, variable in variables.items() if prefix and variable in os.environ}
