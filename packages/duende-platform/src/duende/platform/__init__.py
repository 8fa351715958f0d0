"""Which machine is this, what can it do, and which process is which.

    from duende.platform import capabilities, detect, memory_limit

    print(detect().platform, memory_limit())
    if not capabilities()["docker"].usable:
        print(capabilities()["docker"].mend)

`python -m duende.platform` prints all of it.
"""

from __future__ import annotations

from duende.platform.capabilities import capabilities
from duende.platform.cpu import cpu_limit
from duende.platform.detect import detect, detect_platform
from duende.platform.errors import PlatformInfoError, ProcessGone
from duende.platform.explain import explain, explain_capabilities
from duende.platform.identity import ProcessIdentity, boot_id, process_start_time
from duende.platform.memory import (
    apply_memory_config,
    memory_available,
    memory_limit,
    page_size,
)
from duende.platform.pressure import (
    MemoryPressure,
    PressureTrigger,
    Stall,
    memory_pressure,
)
from duende.platform.survey import Limits, Survey, survey
from duende.platform.types import Capability, Evidence, Platform, PlatformReport
from duende.platform.world import World

__all__ = (
    "Capability",
    "Evidence",
    "Limits",
    "MemoryPressure",
    "Platform",
    "PlatformInfoError",
    "PlatformReport",
    "PressureTrigger",
    "ProcessGone",
    "ProcessIdentity",
    "Stall",
    "Survey",
    "World",
    "apply_memory_config",
    "boot_id",
    "capabilities",
    "cpu_limit",
    "detect",
    "detect_platform",
    "explain",
    "explain_capabilities",
    "memory_available",
    "memory_limit",
    "memory_pressure",
    "page_size",
    "process_start_time",
    "survey",
)
