"""Which adapter serves a platform. Others add theirs by entry point.

An entry point in the group `duende.adapters` names a platform and loads a subclass of
`PlatformAdapter`; it can't take the place of one of duende's own.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Final

from duende.core.adapters.base import PlatformAdapter
from duende.core.errors import NotSupported, PlatformError

__all__ = ("GROUP", "platforms", "select_adapter")

GROUP: Final = "duende.adapters"

_OWN: Final = {
    "native": "duende.core.adapters.native:NativeAdapter",
    "systemd": "duende.core.adapters.systemd:SystemdAdapter",
    "launchd": "duende.core.adapters.launchd:LaunchdAdapter",
    "container": "duende.core.adapters.container:ContainerAdapter",
    "pepita": "duende.core.adapters.pepita:PepitaAdapter",
    "wos": "duende.core.adapters.wos:WosAdapter",
}


def platforms() -> tuple[str, ...]:
    """This lists the platforms that have an adapter, usable here or not."""
    others = sorted(entry.name for entry in entry_points(group=GROUP))
    return (*_OWN, *(name for name in others if name not in _OWN))


def select_adapter(platform: str = "auto") -> PlatformAdapter:
    """This makes the adapter for a platform; `auto` is native.

    Raises:
        NotSupported: The platform is unknown, or can't be served here.
        PlatformError: A foreign adapter does not load.
    """
    if platform == "auto":
        platform = "native"
    if platform in _OWN:
        module, _, name = _OWN[platform].partition(":")
        adapter: PlatformAdapter = getattr(importlib.import_module(module), name)()
    else:
        adapter = _load_foreign(platform)
    if not adapter.capabilities():
        raise NotSupported(
            f"platform {platform!r} can't be used: "
            f"{getattr(adapter, 'reason', 'its adapter can do nothing here')}",
            'use platform = "native"',
        )
    return adapter


def _load_foreign(platform: str) -> PlatformAdapter:
    for entry in entry_points(group=GROUP, name=platform):
        try:
            found = entry.load()()
        except Exception as error:
            raise PlatformError(
                f"the adapter {entry.value} for {platform!r} does not load: {error}",
                "update or remove the package that brings it",
            ) from error
        if not isinstance(found, PlatformAdapter):
            raise PlatformError(
                f"{entry.value} is no PlatformAdapter", "ask who wrote it"
            )
        return found
    known = ", ".join(platforms())
    raise NotSupported(f"there is no adapter for {platform!r}", f"known: {known}")
