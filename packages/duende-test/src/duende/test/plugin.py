"""The pytest plug-in. It is loaded by every pytest of an environment that has it.

So it imports nothing of duende until a fixture is used: what is imported before
coverage starts counts as never run, and nobody should pay for what they don't use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from duende.test.leftovers import LeftoverGuard

__all__ = ("duende_no_leftovers",)


@pytest.fixture
def duende_no_leftovers() -> Iterator[LeftoverGuard]:
    """This fails the test if a process that it started is still there at its end.

    Double forks and new sessions don't hide one. What is found is named in the
    message and killed, so that the next test starts clean. Linux only.
    """
    from duende.test.leftovers import LeftoverGuard

    with LeftoverGuard() as guard:
        yield guard
