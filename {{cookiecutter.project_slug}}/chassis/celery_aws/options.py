"""Loads the modules of the chosen options. A module is named after its option: `results/s3.py`.

A service contains only the modules of the options in its contract.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from . import service
from .contract import ContractError


def load(package: str, option: str) -> Any:
    """Return the module of an option; `sqs-fifo` and `sqs-standard` share the module `sqs`.

    Args:
        package: package of the module, such as `celery_aws.results`.
        option: the option, as in the contract.
    """
    return importlib.import_module(f"{package}.{option.partition('-')[0]}")


def broker() -> str:
    """Return the broker of the contract; if that cannot be read, the one that is here, so that help is shown."""
    try:
        return service.contract().broker
    except (ContractError, OSError):
        return next(name for name in ("sqs", "rabbitmq") if importlib.util.find_spec(f"{__package__}.brokers.{name}"))
