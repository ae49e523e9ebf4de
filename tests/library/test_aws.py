"""Which errors of AWS are worth another try."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ParamValidationError
from botocore.parsers import ResponseParserError

from library.support import module

aws = module("aws")


def of_code(code):
    return ClientError({"Error": {"Code": code}}, "PutItem")


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (of_code("ThrottlingException"), True),
        (of_code("AccessDenied"), True),
        (of_code("ValidationException"), False),
        (of_code("EntityTooLarge"), False),
        (ClientError({}, "PutItem"), True),
        (EndpointConnectionError(endpoint_url="x"), True),
        (NoCredentialsError(), True),
        (ConnectionResetError(), True),
        (ResponseParserError("no JSON"), True),
        (RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."), True),
        (ParamValidationError(report="x"), False),
        (RecursionError(), False),
        (NotImplementedError(), False),
        (KeyError("x"), False),
        (ValueError("x"), False),
    ],
    ids=repr,
)
def test_error_is_worth_another_try_or_not(error, unavailable):
    assert aws.is_unavailable(error) is unavailable
