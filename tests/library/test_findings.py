"""What a check of the `doctor` finds, where no service is needed to see it."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from library.support import module

findings = module("doctor.findings")


def refused(code, status=400):
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "DescribeTable")


@pytest.mark.parametrize(
    ("error", "is_well", "advice"),
    [
        (NoCredentialsError(), None, "log in"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), None, "network"),
        (refused("ExpiredToken", 403), None, "log in"),
        (refused("InternalServerError", 500), None, "again"),
        (refused("ResourceNotFoundException"), False, "apply"),
        (refused("AccessDeniedException"), False, "apply"),
    ],
)
def test_request_when_it_fails_then_the_check_failed_or_could_not_run(error, is_well, advice):
    finding = findings.failed("D401", "results", error, "apply Terraform")
    assert finding.is_well is is_well
    assert advice in finding.advice


def test_request_when_it_fails_for_a_bug_then_raises_it():
    with pytest.raises(KeyError):
        findings.failed("D401", "results", KeyError("Table"), "apply Terraform")


@pytest.mark.parametrize(("seconds", "is_well"), [(0, True), (55, True), (-55, True), (400, False), (-400, False)])
def test_clock(seconds, is_well):
    now = time.time()
    finding = findings.clock(formatdate(now - seconds, usegmt=True), now)
    assert (finding.code, finding.is_well) == ("D104", is_well)
    assert seconds == 0 or ("ahead" in finding.says) == (seconds > 0)
