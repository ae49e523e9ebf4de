"""Commands for SQS."""

from __future__ import annotations

from .depths import HELP as HELP
from .depths import rendered as rendered
from .redrive import redrive as redrive
