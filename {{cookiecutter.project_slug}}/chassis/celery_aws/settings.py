"""Settings that differ between environments, read from environment variables."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError


class Settings(BaseSettings):
    """The environment variables of a service, in lower case. Subclass it to add the service's own.

    The broker, the credentials and the result backend have more; see `Variables` in their modules.
    boto3 reads its own as well: `AWS_ENDPOINT_URL` is the address of an emulator.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    environment: str = Field(
        pattern=r"^[a-z][a-z0-9]{0,10}$",
        description="Name of the environment, such as development, staging or production",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest severity that is logged"
    )


BaseSettingsT = TypeVar("BaseSettingsT", bound=BaseSettings)


def read_settings(settings_class: type[BaseSettingsT], *others: type[BaseSettings]) -> tuple[BaseSettingsT, list[Any]]:
    """Read the environment variables of several settings classes, and report all problems at once.

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
            instances.append(each())
        except ValidationError as error:
            for problem in error.errors(include_input=False):
                name = str(problem["loc"][0])
                lines[f"  {name.upper()}: {problem['msg']}\n    {each.model_fields[name].description}"] = None
    if lines:
        raise SettingsError("Invalid or missing environment variables:\n" + "\n".join(lines))
    return instances[0], instances[1:]
