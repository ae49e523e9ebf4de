"""The service's command."""

from __future__ import annotations

import celery_aws


def main() -> None:
    """Run it."""
    celery_aws.run_command(__package__)


if __name__ == "__main__":
    main()
