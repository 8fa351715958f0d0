"""What a file may say already, but nothing carries out yet: refused, never ignored."""

from __future__ import annotations

from collections.abc import Iterator

from duende.core.config.model import (
    DaemonConfig,
    DependencyState,
    Enforce,
    LockMemory,
    OnRestart,
    ProjectConfig,
)
from duende.core.config.source import KeyPath, render_path

__all__ = ("unsupported",)

_LATER_LIMITS = (
    "memory",
    "memory_high",
    "memory_swap",
    "cpu",
    "cpu_weight",
    "io_read_bps",
    "io_write_bps",
    "pids",
)


def unsupported(config: ProjectConfig) -> tuple[str, ...]:
    """This lists what is configured but not supported yet, as `load_project` does.

    `up` refuses to start with any of it.
    """
    found = []
    for path, text in _find(config):
        message = f"not supported yet{text}"
        if config.source is None:
            found.append(f"{render_path(path)}: {message}")
        else:
            found.append(config.source.problem(_place(config, path), message))
    return tuple(found)


def _place(config: ProjectConfig, path: KeyPath) -> KeyPath:
    """This says where a daemon's key is: under the daemon, or in `[defaults]`."""
    assert config.source is not None, "the caller has looked"
    in_defaults = ("defaults", *path[2:])
    if path[0] == "daemon" and not config.source.has(path):
        return in_defaults if config.source.has(in_defaults) else path
    return path


def _find(config: ProjectConfig) -> Iterator[tuple[KeyPath, str]]:
    if config.supervisor.chaos:
        yield ("supervisor", "chaos"), ""
    for name, daemon in config.daemons.items():
        for path, text in _find_in_daemon(daemon):
            yield ("daemon", name, *path), text
    for group in config.groups:
        yield ("group", group), ""


def _find_in_daemon(daemon: DaemonConfig) -> Iterator[tuple[KeyPath, str]]:
    if daemon.platform not in ("native", "auto"):
        yield ("platform",), f": {daemon.platform!r}; write 'native'"
    for key in ("health", "container", "systemd"):
        if getattr(daemon, key) is not None:
            yield (key,), ""
    if daemon.restart_group:
        yield ("restart_group",), ""
    for target, edge in daemon.depends_on.items():
        path = ("depends_on", target)
        if edge.until is DependencyState.HEALTHY:
            yield path, ": 'healthy'; write 'ready'"
        if edge.on_restart is OnRestart.FOLLOW:
            yield path, ": on_restart = 'follow'"
    resources = daemon.resources
    if resources.enforce is Enforce.STRICT:
        for key in _LATER_LIMITS:
            if getattr(resources, key) is not None:
                hint = "; enforce = 'best-effort' starts without this limit"
                yield ("resources", key), hint
    if resources.lock_memory is not LockMemory.OFF and daemon.entry is None:
        hint = "a lock doesn't survive exec, so the program must lock its memory itself"
        yield ("resources", "lock_memory"), f" for a command: {hint}"
