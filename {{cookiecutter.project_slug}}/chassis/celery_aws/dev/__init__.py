"""Everything the service needs, on this machine: no AWS account, no Docker."""
