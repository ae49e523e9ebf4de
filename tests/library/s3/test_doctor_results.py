"""`doctor` looks at the bucket of the results: is it there, and does it forget."""

from __future__ import annotations

import os
from unittest import mock

import boto3
import pytest

from library.support import module

pytestmark = pytest.mark.end_to_end

results = module("doctor.s3")


def look(service):
    with mock.patch.dict(os.environ, service.environment):
        return {finding.code: finding for finding in results.findings(service.contract, boto3.client)}


def rule(days=1, prefix="", status="Enabled"):
    of, after = {"Prefix": prefix}, {"Days": days}
    return {"ID": f"{days}-{prefix}", "Status": status, "Filter": of, "Expiration": after}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([rule(), rule(9)], None),
        ([rule(prefix="results/")], None),
        ([rule(9)], "expire after 9 days"),
        ([rule(status="Disabled")], "expire never"),
        ([rule(prefix="results/some")], "expire never"),
        ([], "expire never"),
    ],
)
def test_results_that_do_not_expire_in_time_are_found(quiet, rules, says):
    assert all(finding.is_well for finding in look(quiet).values())
    bucket = quiet.environment["RESULTS_BUCKET"]
    with quiet.reached():
        s3 = boto3.client("s3")
    before = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    try:
        if rules:
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
        else:
            s3.delete_bucket_lifecycle(Bucket=bucket)
        found = look(quiet)
    finally:
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": before})
    assert found["D401"].is_well
    assert found["D402"].is_well is (says is None)
    assert says is None or says in found["D402"].says
