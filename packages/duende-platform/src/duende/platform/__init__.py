"""Which machine is this, what can it do, and which process is which.

This release answers the last: who a process is, so that a pid that was reused is
never taken for it. Detection of the platform comes with a later one.
"""

from __future__ import annotations

from duende.platform.errors import PlatformInfoError, ProcessGone
from duende.platform.identity import ProcessIdentity, boot_id, process_start_time

__all__ = (
    "PlatformInfoError",
    "ProcessGone",
    "ProcessIdentity",
    "boot_id",
    "process_start_time",
)
