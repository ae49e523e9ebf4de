"""Notes every request to AWS that a process makes, for tests/test_operations.py, which puts this on the path."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if file := os.environ.get("RECORD_CALLS"):
    from botocore.client import BaseClient

    call = BaseClient._make_api_call

    def recorded(self, name, parameters):
        target = parameters.get("QueueUrl") or parameters.get("QueueName") or parameters.get("SourceArn") or ""
        if name == "CancelMessageMoveTask":
            target = "-dlq"
        noted = {
            "arguments": sys.argv[1:],
            "service": self.meta.service_model.service_name,
            "operation": name,
            "where": "dead" if target.removesuffix(".fifo").endswith("-dlq") else "queue" if target else "elsewhere",
        }
        with Path(file).open("a", encoding="utf-8") as notes:
            notes.write(json.dumps(noted) + "\n")
        return call(self, name, parameters)

    BaseClient._make_api_call = recorded
