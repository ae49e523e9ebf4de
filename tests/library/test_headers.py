"""Messages that Celery could not work on are refused, with all that is wrong; what Celery sends passes."""

from __future__ import annotations

import pytest
from celery import chain, chord
from celery.exceptions import InvalidTaskError

from library.support import module

headers = module("headers")
app = module("service").app()

GOOD = {"task": "name", "id": "1"}


@pytest.mark.parametrize("options", [{}, {"countdown": 1, "expires": 60, "time_limit": 2, "soft_time_limit": 1.5}])
def test_what_celery_sends_then_passes(options):
    signature = app.signature("some.task", (1,))
    canvas = chord([chain(signature, signature), signature], signature)
    message = app.amqp.as_task_v2(
        *("1", "some.task", (1,), {"a": 2}),
        callbacks=[signature],
        errbacks=[signature],
        chain=[signature, canvas],
        chord=signature,
        group_id="2",
        group_index=1,
        stamped_headers=["tenant"],
        **{"tenant": ["x"], **options},
    )
    headers.check(message.headers, message.body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", ["x"]),
        ("id", 7),
        ("id", ""),
        ("id", None),
        ("retries", "x"),
        ("retries", True),
        ("timelimit", 7),
        ("timelimit", [1, 2, 3]),
        ("timelimit", [-1, None]),
        ("eta", 7),
        ("expires", 1.5),
        ("eta", ""),
        ("expires", ""),
        ("group", ["x"]),
        ("stamped_headers", 7),
        ("stamps", "x"),
        ("ignore_result", "no"),
        ("errbacks", {"task": "x"}),
        ("callbacks", ["x"]),
        ("chain", [{"args": []}]),
        ("chord", {"task": "x", "options": 7}),
        ("errbacks", [7]),
    ],
)
def test_field_when_it_is_not_what_it_must_be_then_is_named(field, value):
    for told, following in (({**GOOD, field: value}, {}), (GOOD, {field: value})):
        with pytest.raises(InvalidTaskError, match=f"{field} must be "):
            headers.check(told, [[], {}, following])
    assert headers.valid({"lang": "py", field: value}) == {"lang": "py", **({} if value is not None else {field: None})}


@pytest.mark.parametrize("name", ["_get_custom_headers", "_children", "get", "update"])
def test_header_when_it_would_replace_a_method_then_is_refused(name):
    with pytest.raises(InvalidTaskError, match=f"must not be named {name}"):
        headers.check({**GOOD, name: "x"}, [[], {}, {}])
    assert headers.valid({**GOOD, name: "x"}) == GOOD
    headers.check({**GOOD, "_own": "x", "__own__": "x", "children": "x"}, [[], {}, {}])


@pytest.mark.parametrize("body", [7, "abc", [], [[], {}], None, {}])
def test_body_when_it_has_no_three_parts_then_is_refused(body):
    with pytest.raises(InvalidTaskError, match="invalid body"):
        headers.check(GOOD, body)


@pytest.mark.parametrize("following", [None, {"delivery_info": 7}, {"id": "2"}, {"properties": {}}, ["x"]])
def test_what_follows_when_it_would_replace_other_fields_then_is_refused(following):
    with pytest.raises(InvalidTaskError, match="the signatures must "):
        headers.check(GOOD, [[], {}, following])


def test_errback_when_it_is_the_name_of_a_task_then_passes():
    headers.check({**GOOD, "ignore_result": 1}, [[], {}, {"errbacks": ["tasks.cleanup"]}])


def test_message_when_much_is_wrong_then_all_is_told_but_no_arguments():
    with pytest.raises(InvalidTaskError) as error:
        headers.check({**GOOD, "retries": -1}, ["secret", ["secret"], "x"])
    said = str(error.value)
    assert all(part in said for part in ("the arguments", "the keyword arguments", "the signatures", "retries"))
    assert "secret" not in said
