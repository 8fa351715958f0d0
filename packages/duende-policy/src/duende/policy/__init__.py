"""Policy for daemons: what may run, and how much of the machine it may take.

This release reads the kernel's pressure figures, on which back-pressure rests.
Circuit breaker, limits, gate and sandbox come with later ones, and nothing of them is
here before it works.
"""

from __future__ import annotations

from duende.policy.errors import PolicyError, PressureUnavailable
from duende.policy.pressure import Pressure, Stall, parse_pressure, read_pressure

__all__ = (
    "PolicyError",
    "Pressure",
    "PressureUnavailable",
    "Stall",
    "parse_pressure",
    "read_pressure",
)
