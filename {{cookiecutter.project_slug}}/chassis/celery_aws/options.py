"""Loads the modules of the chosen options. A module is named after its option: `results/s3.py`.

A service contains only the modules of the options in its contract.
"""

from __future__ import annotations

import importlib
from typing import Any


def load(package: str, option: str) -> Any:
    """Return the module of an option; `sqs-fifo` and `sqs-standard` share the module `sqs`.

    Args:
        package: package of the module, such as `celery_aws.results`.
        option: the option, as in the contract.
    """
    return importlib.import_module(f"{package}.{option.partition('-')[0]}")
