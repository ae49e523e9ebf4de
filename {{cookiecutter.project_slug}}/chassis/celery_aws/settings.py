"""What differs between environments, read from environment variables and checked at once."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError


class Settings(BaseSettings):
    """The environment variables of the service, by their lower-case names; its own class adds the service's.

    Broker, credentials and result backend have variables besides; see `Variables` in their modules.
    boto3 reads more: `AWS_ENDPOINT_URL` leads it to an emulator.
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


def read_settings(kind: type[Some], *others: type[BaseSettings]) -> tuple[Some, list[Any]]:
    """Read environment variables into a class, and into others; all that is wrong is reported at once.

    Returns:
        The instance of the first class, and those of the others.

    Raises:
        SettingsError: variables are missing or wrong.
    """
    made: list[Any] = []
    lines: dict[str, None] = {}
    kinds: list[type[BaseSettings]] = [kind, *others]
    for each in kinds:
        try:
            made.append(each())
        except ValidationError as error:
            for problem in error.errors(include_input=False):
                name = str(problem["loc"][0])
                lines[f"  {name.upper()}: {problem['msg']}\n    {each.model_fields[name].description}"] = None
    if lines:
        raise SettingsError("Invalid or missing environment variables:\n" + "\n".join(lines))
    return made[0], made[1:]
