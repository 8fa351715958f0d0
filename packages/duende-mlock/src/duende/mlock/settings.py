"""Whether a daemon's memory is to be locked: what is declared, and what overrides it."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from typing import final

__all__ = ("VARIABLE", "LockMode", "resolve_mode")

VARIABLE = "DUENDE_MLOCK"
"""The environment variable that overrides what a daemon declares."""


@final
class LockMode(enum.Enum):
    """This is how much it matters that memory gets locked."""

    OFF = "off"
    """Nothing is locked."""
    TRY = "try"
    """It is locked where that can be done; else a warning says why not."""
    REQUIRED = "required"
    """Without the lock there is no daemon."""


_DECLARED = {
    None: LockMode.OFF,
    False: LockMode.OFF,
    "false": LockMode.OFF,
    "off": LockMode.OFF,
    True: LockMode.TRY,
    "true": LockMode.TRY,
    "try": LockMode.TRY,
    "required": LockMode.REQUIRED,
}


def resolve_mode(
    declared: str | bool | LockMode | None, environ: Mapping[str, str] | None = None
) -> LockMode:
    """This decides: DUENDE_MLOCK if it is set, else what was declared, else off.

    Args:
        declared: What the daemon's configuration says: false, true (the same as
            "try") or "required".
        environ: The environment to look in; by default this process's.

    Raises:
        ValueError: One of the two is none of the known values.
    """
    override = (os.environ if environ is None else environ).get(VARIABLE)
    if override:
        try:
            return LockMode(override.strip().lower())
        except ValueError:
            raise ValueError(
                f"{VARIABLE} is {override!r}; it can be off, try or required"
            ) from None
    if isinstance(declared, LockMode):
        return declared
    if declared not in _DECLARED:
        raise ValueError(
            f"lock_memory is {declared!r}; it can be false, true or 'required'"
        )
    return _DECLARED[declared]
