"""Loads the modules of the chosen options. A module is named after its option: `results/s3.py`.

A service contains only the modules of the options in its contract.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from . import service
from .contract import CHOICES, OPTION_NAMES, ContractError, names_of


def load(package: str, option: str) -> Any:
    """Return the module of an option; `sqs-fifo` and `sqs-standard` share the module `sqs`.

    Args:
        package: package of the module, such as `celery_aws.results`.
        option: the option, as in the contract.
    """
    return importlib.import_module(_module(package, option))


def _module(package: str, option: str) -> str:
    return f"{package}.{option.partition('-')[0]}"


def names() -> frozenset[str]:
    """Return the names of the contract's options; of all options if it cannot be read, so that help is shown."""
    try:
        return service.contract().option_names
    except (ContractError, OSError):
        return OPTION_NAMES


def broker() -> str:
    """Return the broker of the contract; if that cannot be read, the one whose modules are here."""
    chosen = names()
    return next(
        option
        for option in CHOICES["broker"]
        if names_of(option) <= chosen and importlib.util.find_spec(_module(f"{__package__}.brokers", option))
    )
