"""Remote control on SQS is refused, and not ignored in silence."""

from __future__ import annotations

import pytest

from library.support import module

app = module("service").app()
errors = module("errors")


@pytest.mark.parametrize(
    "command",
    [
        lambda control: control.revoke("1"),
        lambda control: control.ping(),
        lambda control: control.inspect().active(),
        lambda control: control.rate_limit("t", 1),
        lambda control: app.AsyncResult("1").revoke(),
    ],
    ids=["revoke", "ping", "inspect", "rate_limit", "result.revoke"],
)
def test_remote_control_when_used_then_says_why_it_cannot_be(command):
    with pytest.raises(errors.RemoteControlUnavailableError, match="SQS has no broadcast"):
        command(app.control)
