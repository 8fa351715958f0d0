"""Daemons in Python: write them, run them, keep them running.

Everything public is here and loaded when it is first asked for (PEP 562): a
daemon's start is mostly imports, so `import duende.core` alone loads no submodule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duende.core.adapters.base import PlatformAdapter
    from duende.core.adapters.container import ContainerAdapter
    from duende.core.adapters.launchd import LaunchdAdapter
    from duende.core.adapters.native import NativeAdapter
    from duende.core.adapters.pepita import PepitaAdapter
    from duende.core.adapters.registry import select_adapter
    from duende.core.adapters.systemd import SystemdAdapter
    from duende.core.adapters.wos import WosAdapter
    from duende.core.config.model import DaemonConfig
    from duende.core.context import DaemonContext
    from duende.core.daemon import Daemon
    from duende.core.errors import (
        AlreadyRunning,
        ConfigError,
        DaemonError,
        HealthCheckError,
        InitError,
        InvalidState,
        NotFound,
        NotSupported,
        PermissionDenied,
        PlatformError,
        ResourceLimitError,
        ShutdownTimeout,
        SpawnError,
    )
    from duende.core.manager import DaemonManager
    from duende.core.metrics import DaemonMetrics
    from duende.core.runner import main
    from duende.core.types import (
        BackoffConfig,
        DaemonId,
        DaemonInfo,
        DaemonStatus,
        Event,
        ExitInfo,
        ExitReason,
        FailureReason,
        HealthCheck,
        HealthStatus,
        RestartPolicy,
    )

__all__ = (
    "AlreadyRunning",
    "BackoffConfig",
    "ConfigError",
    "ContainerAdapter",
    "Daemon",
    "DaemonConfig",
    "DaemonContext",
    "DaemonError",
    "DaemonId",
    "DaemonInfo",
    "DaemonManager",
    "DaemonMetrics",
    "DaemonStatus",
    "Event",
    "ExitInfo",
    "ExitReason",
    "FailureReason",
    "HealthCheck",
    "HealthCheckError",
    "HealthStatus",
    "InitError",
    "InvalidState",
    "LaunchdAdapter",
    "NativeAdapter",
    "NotFound",
    "NotSupported",
    "PepitaAdapter",
    "PermissionDenied",
    "PlatformAdapter",
    "PlatformError",
    "ResourceLimitError",
    "RestartPolicy",
    "ShutdownTimeout",
    "SpawnError",
    "SystemdAdapter",
    "WosAdapter",
    "main",
    "select_adapter",
)

_TYPES = (
    "BackoffConfig",
    "DaemonId",
    "DaemonInfo",
    "DaemonStatus",
    "Event",
    "ExitInfo",
    "ExitReason",
    "FailureReason",
    "HealthCheck",
    "HealthStatus",
    "RestartPolicy",
)
_HOMES = {
    **dict.fromkeys(_TYPES, "types"),
    "ContainerAdapter": "adapters.container",
    "Daemon": "daemon",
    "DaemonConfig": "config.model",
    "DaemonContext": "context",
    "DaemonManager": "manager",
    "DaemonMetrics": "metrics",
    "LaunchdAdapter": "adapters.launchd",
    "NativeAdapter": "adapters.native",
    "PepitaAdapter": "adapters.pepita",
    "PlatformAdapter": "adapters.base",
    "SystemdAdapter": "adapters.systemd",
    "WosAdapter": "adapters.wos",
    "main": "runner",
    "select_adapter": "adapters.registry",
}
"""Where each public name lives; what is not listed lives in `errors`."""

# Hidden from type checkers: with it, every misspelt name would be an attribute.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
        value = globals()[name] = getattr(home, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
