"""See what processes do, cheaply and without guessing.

This release parses what Linux says of a process. Monitor, tracer and exporters come
with later ones, and nothing of them is here before it works.
"""

from __future__ import annotations

from duende.observe.procfs import ProcStat, parse_proc_stat

__all__ = ("ProcStat", "parse_proc_stat")
