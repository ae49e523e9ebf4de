"""For the tests of a service: it runs on the emulator, with real workers."""

from __future__ import annotations

import pytest

# So that a failed assertion shows its values, as in a service's own tests.
pytest.register_assert_rewrite(f"{__name__}.conformance", f"{__name__}.terraform")
