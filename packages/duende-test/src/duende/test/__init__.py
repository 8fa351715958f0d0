"""Tests for daemons.

This release brings one pytest fixture, `duende_no_leftovers`: a test that leaves a
process behind fails. Harness, faults and virtual time come with later ones, and
nothing of them is here before it works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duende.test.leftovers import Leftover, LeftoverGuard, LeftoversFound

__all__ = ("Leftover", "LeftoverGuard", "LeftoversFound")

# Lazy, because pytest imports this package for the plug-in, before coverage starts.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from duende.test import leftovers

        value = globals()[name] = getattr(leftovers, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
