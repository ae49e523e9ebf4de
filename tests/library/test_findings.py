"""What a check of the `doctor` finds, where no service is needed to see it."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from library.support import module

findings = module("doctor.findings")


@pytest.mark.parametrize(("seconds", "is_well"), [(0, True), (55, True), (-55, True), (400, False), (-400, False)])
def test_clock(seconds, is_well):
    now = time.time()
    finding = findings.clock(formatdate(now - seconds, usegmt=True), now)
    assert (finding.code, finding.is_well) == ("D104", is_well)
    assert seconds == 0 or ("ahead" in finding.says) == (seconds > 0)
