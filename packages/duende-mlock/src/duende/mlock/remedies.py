"""The exact lines that give a process the right to lock its memory, by place."""

from __future__ import annotations

import dataclasses
import shlex
from typing import final

__all__ = ("PLACES", "Remedy", "remedies_for")

PLACES = (
    "systemd",
    "docker",
    "podman",
    "compose",
    "kubernetes",
    "setcap",
    "limits.conf",
)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Remedy:
    """This is what to write where, and what to know about it."""

    place: str
    lines: tuple[str, ...]
    note: str


def remedies_for(first: str, program: str) -> tuple[Remedy, ...]:
    """This lists all remedies, that of the place where we are first.

    Args:
        first: One of `PLACES`.
        program: The interpreter's file, for setcap(8).
    """
    known = {remedy.place: remedy for remedy in _remedies(program)}
    return tuple(known[name] for name in sorted(PLACES, key=lambda name: name != first))


def _remedies(program: str) -> tuple[Remedy, ...]:
    return (
        Remedy(
            "systemd",
            (
                "[Service]",
                "LimitMEMLOCK=infinity",
                "AmbientCapabilities=CAP_IPC_LOCK",
            ),
            "in the unit, by systemctl edit UNIT; then systemctl restart UNIT. A user's "
            "manager can't give the capability: there the limit alone counts, and the "
            "system has to allow it in user@.service",
        ),
        Remedy(
            "docker",
            ("docker run --cap-add=IPC_LOCK --ulimit memlock=-1:-1 IMAGE",),
            "the capability alone is enough for root in the container; another user "
            "there needs the limit",
        ),
        Remedy(
            "podman",
            ("podman run --cap-add=IPC_LOCK --ulimit memlock=-1:-1 IMAGE",),
            "rootless podman can't go beyond the limit of the user that starts it: "
            "raise that one, and pass it on by --ulimit host",
        ),
        Remedy(
            "compose",
            (
                "services:",
                "  NAME:",
                "    cap_add: [IPC_LOCK]",
                "    ulimits:",
                "      memlock: {soft: -1, hard: -1}",
            ),
            "then docker compose up -d NAME",
        ),
        Remedy(
            "kubernetes",
            (
                "securityContext:",
                "  capabilities:",
                '    add: ["IPC_LOCK"]',
            ),
            "of the container, which must run as root: a pod has no field for the limit, "
            "and other users don't get added capabilities. For them the limit of the "
            "node's container runtime counts (LimitMEMLOCK in its unit)",
        ),
        Remedy(
            "setcap",
            (f"setcap cap_ipc_lock=ep {shlex.quote(program)}",),
            "as root; every program of this interpreter has the right then: do it to a "
            "copy of the interpreter of its own. LD_LIBRARY_PATH and LD_PRELOAD are "
            "passed over in it",
        ),
        Remedy(
            "limits.conf",
            ("USER soft memlock unlimited", "USER hard memlock unlimited"),
            "in /etc/security/limits.d/memlock.conf, for logins of USER from the next "
            "one on; systemd services don't read it",
        ),
    )
