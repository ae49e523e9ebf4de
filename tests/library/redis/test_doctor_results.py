"""`doctor` looks at the server of the results: does it forget by itself, and no earlier."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import redis

from library.support import module

pytestmark = pytest.mark.end_to_end

results = module("doctor.redis")


@pytest.mark.parametrize(
    ("policy", "is_well"),
    [("noeviction", True), ("volatile-ttl", True), ("allkeys-lru", False), ("volatile-random", False)],
)
def test_a_server_that_forgets_what_is_young_is_found(quiet, policy, is_well):
    with mock.patch.dict(os.environ, quiet.environment):
        url = module("results.redis").celery_settings(quiet.contract, module("results.redis").Variables())[
            "result_backend"
        ]
        server = redis.Redis.from_url(url)
        before = server.config_get("maxmemory-policy")["maxmemory-policy"]
        server.config_set("maxmemory-policy", policy)
        try:
            found = {each.code: each for each in results.findings(quiet.contract, mock.Mock())}
        finally:
            server.config_set("maxmemory-policy", before)
    assert found["D401"].is_well
    assert found["D402"].is_well is is_well
    assert policy in found["D402"].says
