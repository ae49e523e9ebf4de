"""`doctor` looks at the table of the results: is it there, and does it forget."""

from __future__ import annotations

import os
from unittest import mock

import boto3
import pytest

from library.support import module

pytestmark = pytest.mark.end_to_end

results = module("doctor.dynamodb")


@pytest.fixture
def look(quiet):
    """Make a table; return what is not well about it, by code."""
    made = []
    with quiet.reached():
        dynamodb = boto3.client("dynamodb")

    def found(key="id", expires_by="ttl"):
        dynamodb.create_table(
            TableName="other",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        )
        made.append("other")
        if expires_by:
            expiry = {"Enabled": True, "AttributeName": expires_by}
            dynamodb.update_time_to_live(TableName="other", TimeToLiveSpecification=expiry)
        with mock.patch.dict(os.environ, {**quiet.environment, "RESULTS_TABLE": "other"}):
            every = results.findings(quiet.contract, boto3.client)
            return {finding.code: finding for finding in every if not finding.is_well}

    yield found
    for table in made:
        dynamodb.delete_table(TableName=table)


def test_a_table_as_it_should_be_is_well(look):
    assert look() == {}


@pytest.mark.parametrize("attribute", ["", "expires"])
def test_results_that_do_not_expire_are_found(look, attribute):
    found = look(expires_by=attribute)
    assert list(found) == ["D402"]
    assert found["D402"].is_well is False
    assert found["D402"].advice


def test_a_table_that_celery_cannot_use_is_found(look):
    found = look(key="name")
    assert list(found) == ["D401"]
    assert found["D401"].is_well is False
    assert "hash key `id`" in found["D401"].advice
