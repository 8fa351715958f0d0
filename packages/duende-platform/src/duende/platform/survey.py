"""All of it at once: where this runs, what limits it, what works here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, final

from duende.platform.capabilities import capabilities
from duende.platform.cpu import cpu_limit
from duende.platform.detect import detect
from duende.platform.errors import PlatformInfoError
from duende.platform.explain import explain, explain_capabilities
from duende.platform.memory import memory_available, memory_limit, page_size
from duende.platform.pressure import MemoryPressure, memory_pressure
from duende.platform.types import Capability, PlatformReport

__all__ = ("Limits", "Survey", "survey")

MIB = 1024 * 1024


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """This is what this process can have of the machine."""

    memory_limit: int | None
    """Bytes; None when only the machine's own memory limits it."""
    memory_available: int
    """Bytes."""
    cpu_limit: float | None
    """Processors' worth of time; None when it may have the whole machine."""
    page_size: int
    """Bytes."""
    memory_pressure: MemoryPressure | None
    """None where the kernel does not tell."""


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """This is what `python -m duende.platform` prints."""

    report: PlatformReport
    limits: Limits
    capabilities: Mapping[str, Capability]
    """Empty when they were not asked for."""

    def as_text(self) -> str:
        """This is for people."""
        parts = [explain(self.report), *_limit_lines(self.limits)]
        if self.capabilities:
            parts.append("what can start, limit and watch daemons here:")
            parts.append(explain_capabilities(self.capabilities))
        return "\n".join(parts)

    def as_json(self) -> str:
        """This is for programs: the report's fields, `limits` and `capabilities`."""
        answer: dict[str, Any] = {
            **dataclasses.asdict(self.report),
            "platform": self.report.platform.value,
            "limits": dataclasses.asdict(self.limits),
            "capabilities": {
                name: dataclasses.asdict(each)
                for name, each in self.capabilities.items()
            },
        }
        return json.dumps(answer, indent=2)


def survey(*, with_capabilities: bool = True) -> Survey:
    """This looks at everything; it blocks as `capabilities` does.

    Raises:
        ValueError: DUENDE_PLATFORM is set, and is no platform.
        PlatformInfoError: /proc can't be read (Linux).
    """
    report = detect()
    try:
        pressure = memory_pressure()
    except PlatformInfoError:
        pressure = None
    limits = Limits(
        memory_limit=memory_limit(),
        memory_available=memory_available(),
        cpu_limit=cpu_limit(),
        page_size=page_size(),
        memory_pressure=pressure,
    )
    found = capabilities() if with_capabilities else {}
    return Survey(report=report, limits=limits, capabilities=found)


def _limit_lines(limits: Limits) -> list[str]:
    memory, cpus, pressure = (
        limits.memory_limit,
        limits.cpu_limit,
        limits.memory_pressure,
    )
    return [
        "memory limit: "
        + ("the machine's memory" if memory is None else f"{memory / MIB:.1f} MiB"),
        f"memory available: {limits.memory_available / MIB:.1f} MiB",
        "processors: "
        + ("all of the machine" if cpus is None else f"{cpus:g} at a time"),
        "memory pressure: "
        + ("not told" if pressure is None else f"{pressure.some.avg10:g} % (10 s)"),
    ]
