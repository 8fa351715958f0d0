"""The pepita (microVM) platform, which duende does not serve yet."""

from __future__ import annotations

from typing import final

from duende.core.adapters.base import UnavailableAdapter

__all__ = ("PepitaAdapter",)


@final
class PepitaAdapter(UnavailableAdapter):
    """This refuses every operation with `NotSupported`."""

    name = "pepita"
    reason = "there is no pepita to run daemons in"
