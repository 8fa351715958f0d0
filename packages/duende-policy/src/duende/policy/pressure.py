"""Pressure: how much time is lost to waiting for CPU, memory or I/O.

These are the pressure stall figures of Linux 4.20 (Documentation/accounting/psi.rst),
of the whole machine or of one cgroup. `parse_` is pure, `read_` touches the world.
"""

from __future__ import annotations

import os
import pathlib
from typing import final

import attrs

from duende.policy.errors import PressureUnavailable

__all__ = ("Pressure", "Stall", "parse_pressure", "read_pressure")

_AVERAGES = ("avg10", "avg60", "avg300")


@final
@attrs.frozen(kw_only=True)
class Stall:
    """This is a share of time: per cent over the last 10, 60 and 300 seconds.

    `total` is the stalled time since boot, or since the cgroup was made, in
    microseconds; the difference of two readings is exact where averages lag.
    """

    avg10: float
    avg60: float
    avg300: float
    total: int


@final
@attrs.frozen(kw_only=True)
class Pressure:
    """This is what one pressure file says.

    `some`: at least one task was waiting. `full`: all that could run were, so
    nothing got done; None where the kernel does not say it (cpu before Linux 5.13).
    """

    some: Stall
    full: Stall | None = None


def parse_pressure(text: str) -> Pressure:
    """This reads the text of a pressure file.

    Lines and keys that a later kernel may add are skipped.

    Raises:
        ValueError: It is no such text: a figure is missing or is no number.
    """
    stalls: dict[str, Stall] = {}
    for line in text.splitlines():
        kind, *pairs = line.split() or [""]
        if kind in {"some", "full"}:
            stalls[kind] = _stall(
                line, dict(pair.partition("=")[::2] for pair in pairs)
            )
    if "some" not in stalls:
        raise ValueError(f"not a pressure file: {text[:80]!r}")
    return Pressure(some=stalls["some"], full=stalls.get("full"))


def _stall(line: str, fields: dict[str, str]) -> Stall:
    try:
        averages = {name: float(fields[name]) for name in _AVERAGES}
        total = int(fields["total"])
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing in {line!r}") from error
    if total < 0 or not all(0 <= share <= 100 for share in averages.values()):
        raise ValueError(f"a figure is out of range in {line!r}")
    return Stall(total=total, **averages)


def read_pressure(
    resource: str, cgroup: str | os.PathLike[str] | None = None
) -> Pressure:
    """This reads the pressure on `cpu`, `memory` or `io` right now.

    Args:
        resource: cpu, memory or io.
        cgroup: The folder of a cgroup v2; None is the whole machine.

    Raises:
        ValueError: The resource is none of the three.
        PressureUnavailable: The kernel does not tell, or may not be asked.
    """
    if resource not in {"cpu", "memory", "io"}:
        raise ValueError(f"{resource!r} has no pressure; ask for cpu, memory or io")
    if cgroup is None:
        path = pathlib.Path("/proc/pressure", resource)
    else:
        path = pathlib.Path(cgroup, f"{resource}.pressure")
    try:
        return parse_pressure(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        # EOPNOTSUPP at read: compiled in, and switched off at boot (psi=1 turns it on).
        raise PressureUnavailable(
            f"can't read the pressure on {resource} from {path}: {error}",
            "it needs Linux 4.20 with CONFIG_PSI, some machines also psi=1 at boot",
        ) from error
