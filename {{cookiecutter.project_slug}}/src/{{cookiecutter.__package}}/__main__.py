"""The service's command line."""

from __future__ import annotations

import celery_aws


def main() -> None:
    """Run the command line, and exit with its status."""
    celery_aws.run_command(__package__)


if __name__ == "__main__":
    main()
