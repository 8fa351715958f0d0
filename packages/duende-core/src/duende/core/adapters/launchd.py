"""The launchd platform, which duende does not serve yet."""

from __future__ import annotations

from typing import final

from duende.core.adapters.base import UnavailableAdapter

__all__ = ("LaunchdAdapter",)


@final
class LaunchdAdapter(UnavailableAdapter):
    """This refuses every operation with `NotSupported`."""

    name = "launchd"
    reason = "running daemons as launchd jobs is not supported yet"
