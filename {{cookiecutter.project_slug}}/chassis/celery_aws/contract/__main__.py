"""Check a contract: `PYTHONPATH=chassis python3 -m celery_aws.contract contract.json`.

It needs the standard library only, so that `make plan` can run it before anything is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .checking import ContractError, read


def main() -> str | None:
    """Check the contract that the command line names; return what is wrong with it."""
    try:
        read(Path(sys.argv[1]))
    except (ContractError, OSError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
