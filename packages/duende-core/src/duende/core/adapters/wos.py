"""The WOS (WebAssembly) platform, which duende does not serve yet."""

from __future__ import annotations

from typing import final

from duende.core.adapters.base import UnavailableAdapter

__all__ = ("WosAdapter",)


@final
class WosAdapter(UnavailableAdapter):
    """This refuses every operation with `NotSupported`."""

    name = "wos"
    reason = "there is no WOS to run daemons in"
