"""Pressure stall information: how much time is lost waiting for memory.

From Documentation/accounting/psi.rst of Linux (4.20; control groups of version 2).
"""

from __future__ import annotations

import dataclasses
import errno
import os
import select
import sys
from typing import Literal, final

from duende.mlock.cgroups import own_cgroups
from duende.platform.errors import PlatformInfoError
from duende.platform.world import World

__all__ = ("MemoryPressure", "PressureTrigger", "Stall", "memory_pressure")

MACHINE = "/proc/pressure/memory"
CAP_SYS_RESOURCE = 24
SLOW_WINDOW = 2_000_000
"""Microseconds; without CAP_SYS_RESOURCE a window is a multiple of it (Linux 6.4)."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Stall:
    """This is the share of time that was lost, in percent, and all of it."""

    avg10: float
    """Percent, of the last 10 seconds."""
    avg60: float
    avg300: float
    total: float
    """Seconds since the start."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class MemoryPressure:
    """This is how much waiting for memory there is."""

    some: Stall
    """At least one task waited."""
    full: Stall
    """All tasks that had work waited at the same time."""
    source: str
    """The file that says it: a control group's, or the whole machine's."""


def memory_pressure(world: World | None = None) -> MemoryPressure:
    """This is the pressure on this process's control group, else on the machine.

    Raises:
        PlatformInfoError: The kernel does not tell (ENOTSUP): no Linux, none since
            4.20, or started without psi=1.
    """
    here = World() if world is None else world
    for source in _sources(here):
        text = here.read(source)
        if text is None:
            continue
        stalls = {}
        for line in text.split("\n"):
            kind, *pairs = line.split() or [""]
            values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
            try:
                stalls[kind] = Stall(
                    avg10=float(values["avg10"]),
                    avg60=float(values["avg60"]),
                    avg300=float(values["avg300"]),
                    total=int(values["total"]) / 1e6,
                )
            except (KeyError, ValueError):
                continue
        if "some" in stalls and "full" in stalls:
            return MemoryPressure(stalls["some"], stalls["full"], source)
    raise _untold()


@final
class PressureTrigger:
    """This becomes readable when memory was waited for too long within a window.

    `fileno` is a descriptor for any event loop: wait until it is readable
    (`anyio.wait_readable(trigger)`). Having been woken is the event; the kernel forgets
    it with the wake-up, and tells at most one in a window. `wait` is for threads.

    Args:
        stall: Seconds of waiting that are too long.
        window: Seconds in which they are added up: 0.5 to 10, and without
            CAP_SYS_RESOURCE a multiple of 2.
        kind: "some": a task waited; "full": all of them did.
        source: The file that is watched; by default this process's control group's if
            it may be written, else the machine's.

    Raises:
        ValueError: The two times don't fit each other or the kernel's rules.
        PlatformInfoError: The kernel has no such thing (ENOTSUP), or refuses it here.
    """

    __slots__ = ("_epoll", "_file", "source")

    def __init__(
        self,
        stall: float,
        window: float,
        kind: Literal["some", "full"] = "some",
        source: str | None = None,
    ) -> None:
        stall_us, window_us = round(stall * 1e6), round(window * 1e6)
        if kind not in ("some", "full"):
            raise ValueError(f"kind is {kind!r}; it can be some or full")
        if not 500_000 <= window_us <= 10_000_000:
            raise ValueError(f"window is {window} s; it can be 0.5 to 10 s")
        if not 0 < stall_us <= window_us:
            raise ValueError(
                f"stall is {stall} s; it can be up to the window, {window} s"
            )
        if sys.platform != "linux":
            raise _untold()
        text = f"{kind} {stall_us} {window_us}\0".encode()
        places = (source,) if source else _sources(World())
        self.source: str
        self._file: int
        self._file, self.source = _open_trigger(places, text, window_us)
        self._epoll = select.epoll()
        self._epoll.register(self._file, select.EPOLLPRI)

    def fileno(self) -> int:
        """This is the descriptor that becomes readable; it is for waiting only."""
        if sys.platform != "linux":
            raise _untold()
        return self._epoll.fileno()

    def wait(self, timeout: float | None = None) -> bool:
        """This blocks the thread until the pressure came, or for some seconds.

        Returns:
            False when the time was over first.

        Raises:
            PlatformInfoError: The control group is gone (ENODEV).
        """
        if sys.platform != "linux":
            raise _untold()
        events = self._epoll.poll(-1 if timeout is None else timeout)
        if any(event & select.EPOLLERR for _, event in events):
            raise PlatformInfoError(
                errno.ENODEV, "the control group is gone; watch another", self.source
            )
        return bool(events)

    def close(self) -> None:
        """This ends the watch."""
        if sys.platform != "linux":
            raise _untold()
        self._epoll.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> PressureTrigger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sources(world: World) -> tuple[str, ...]:
    groups = own_cgroups("", world.root)  # version 2 only: it has no controllers' names
    return (*(f"{group.path}/memory.pressure" for group in groups[:1]), MACHINE)


def _open_trigger(
    places: tuple[str, ...], text: bytes, window_us: int
) -> tuple[int, str]:
    """This opens the first of the files that may be written, and starts the watch."""
    if sys.platform != "linux":
        raise _untold()
    refused: OSError | None = None
    for place in places:
        try:
            file = os.open(place, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            refused = error
            continue
        try:
            os.write(file, text)
        except OSError as error:
            os.close(file)
            if error.errno == errno.EINVAL and window_us % SLOW_WINDOW:
                raise ValueError(
                    f"window is {window_us / 1e6} s; without CAP_SYS_RESOURCE it has to "
                    "be a multiple of 2 s"
                ) from None
            refused = error
            continue
        return file, place
    assert refused is not None, "there is always the machine's file to try"
    if refused.errno in (errno.ENOENT, errno.EOPNOTSUPP) and MACHINE in places:
        raise _untold()
    raise PlatformInfoError(
        refused.errno,
        f"can't watch the pressure: {refused.strerror}; it takes a memory.pressure "
        "that may be written",
        refused.filename or places[-1],
    ) from refused


def _untold() -> PlatformInfoError:
    return PlatformInfoError(
        errno.ENOTSUP,
        "there is no pressure stall information here; it takes Linux 4.20 or later, "
        "started with psi=1",
        MACHINE,
    )
