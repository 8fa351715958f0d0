"""The texts of /proc, parsed. Pure: nothing in here opens a file."""

from __future__ import annotations

from typing import final

import attrs

__all__ = ("ProcStat", "parse_proc_stat")


@final
@attrs.frozen(kw_only=True)
class ProcStat:
    """This is what a monitor needs of /proc/PID/stat, field by field of proc(5).

    Times are clock ticks (`os.sysconf("SC_CLK_TCK")` a second), `start_time` those
    since boot; `virtual_bytes` is bytes, `resident_pages` pages.
    """

    pid: int
    name: str
    """At most 15 bytes of the program's name; bytes that are no UTF-8 as surrogates."""
    state: str
    parent: int
    group: int
    session: int
    minor_faults: int
    major_faults: int
    user_ticks: int
    system_ticks: int
    child_user_ticks: int
    child_system_ticks: int
    nice: int
    threads: int
    start_time: int
    virtual_bytes: int
    resident_pages: int


def parse_proc_stat(stat: bytes) -> ProcStat:
    """This reads the bytes of a /proc/PID/stat.

    The name stands in parentheses and may hold anything: spaces, newlines, `)`. It
    ends at the last `)`; all that follows is numbers.

    Raises:
        ValueError: The bytes are no /proc/PID/stat.
    """
    head, closing, tail = stat.rpartition(b")")
    pid, opening, name = head.partition(b" (")
    fields = tail.split()
    if not (closing and opening and len(fields) >= 22 and len(fields[0]) == 1):
        raise ValueError(f"not a /proc/PID/stat: {stat[:80]!r}")
    try:
        # proc(5) counts from 1 with the pid: its field 4 is number[0].
        number = [int(field) for field in fields[1:22]]
        return ProcStat(
            pid=int(pid),
            name=name.decode("utf-8", "surrogateescape"),
            state=fields[0].decode("ascii"),
            parent=number[0],
            group=number[1],
            session=number[2],
            minor_faults=number[6],
            major_faults=number[8],
            user_ticks=number[10],
            system_ticks=number[11],
            child_user_ticks=number[12],
            child_system_ticks=number[13],
            nice=number[15],
            threads=number[16],
            start_time=number[18],
            virtual_bytes=number[19],
            resident_pages=number[20],
        )
    except ValueError as error:
        raise ValueError(f"not a /proc/PID/stat: {stat[:80]!r}") from error
