"""The systemd platform, which duende does not serve yet."""

from __future__ import annotations

from typing import final

from duende.core.adapters.base import UnavailableAdapter

__all__ = ("SystemdAdapter",)


@final
class SystemdAdapter(UnavailableAdapter):
    """This refuses every operation with `NotSupported`."""

    name = "systemd"
    reason = "running daemons as systemd units is not supported yet"
