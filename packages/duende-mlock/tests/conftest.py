"""What the tests of memory locking share."""

from __future__ import annotations

import sys

import pytest

from .child import may_lock


@pytest.fixture
def capability() -> None:
    """This skips where the machine does not let the tests lock."""
    if sys.platform != "linux" or not may_lock():
        pytest.skip("needs CAP_IPC_LOCK: run as root")
