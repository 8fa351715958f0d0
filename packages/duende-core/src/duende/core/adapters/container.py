"""The container platform, which duende does not serve yet."""

from __future__ import annotations

from typing import final

from duende.core.adapters.base import UnavailableAdapter

__all__ = ("ContainerAdapter",)


@final
class ContainerAdapter(UnavailableAdapter):
    """This refuses every operation with `NotSupported`."""

    name = "container"
    reason = "running daemons in containers is not supported yet"
