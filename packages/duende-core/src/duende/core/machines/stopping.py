"""How a daemon is ended: the signal, what is left of its tree, then SIGKILL.

The ladder (contract, `[daemon.x.stop]`): the stop signal to the main process; when
that has ended, SIGTERM and SIGCONT to the rest of the tree for what remains of the
timeout; then SIGKILL to everything. What survives even that, because the kernel
can't end it, is reported as stuck after a grace period.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias, final

import attrs

__all__ = (
    "STUCK_AFTER",
    "Ended",
    "Force",
    "MainGone",
    "MainHeld",
    "Overdue",
    "SendSignal",
    "StopEffect",
    "StopEvent",
    "StopPhase",
    "Stopping",
    "Stuck",
    "TreeEmpty",
    "begin_stop",
    "begin_sweep",
    "take_over_stop",
)

STUCK_AFTER: Final = 5_000_000_000
"""Nanoseconds after SIGKILL at which a process that still lives is called stuck."""


class StopPhase(enum.Enum):
    """This is how far the ladder has come."""

    ASKED = "asked"  # the main process has the stop signal
    SWEEPING = "sweeping"  # the main process has ended, the rest has SIGTERM
    KILLING = "killing"  # everything has SIGKILL
    STUCK = "stuck"  # something survived SIGKILL for STUCK_AFTER
    DONE = "done"  # nothing is left


@final
@attrs.frozen
class MainGone:
    """The main process has ended; `left` processes of its tree live on."""

    left: int


@final
@attrs.frozen
class MainHeld:
    """The main process was stopped by a signal, so that it can't see the one to end."""


@final
@attrs.frozen
class TreeEmpty:
    """Nothing of the tree lives any more."""


@final
@attrs.frozen
class Overdue:
    """The deadline that was armed last has passed."""

    now: int


@final
@attrs.frozen
class Force:
    """A person does not want to wait any longer."""

    now: int


StopEvent: TypeAlias = MainGone | MainHeld | TreeEmpty | Overdue | Force


@final
@attrs.frozen
class SendSignal:
    """Send this signal (a name); `scope` is main, tree or rest."""

    signal: str
    scope: str


@final
@attrs.frozen
class Ended:
    """It is over; `killed` says whether SIGKILL was needed."""

    killed: bool


@final
@attrs.frozen
class Stuck:
    """Something survives SIGKILL (uninterruptible sleep, most likely)."""


StopEffect: TypeAlias = SendSignal | Ended | Stuck

_SWEEP: Final = (
    SendSignal("SIGTERM", "rest"),
    SendSignal("SIGCONT", "rest"),
)
_CONTINUE: Final = (SendSignal("SIGCONT", "tree"),)
_KILL: Final = (SendSignal("SIGKILL", "tree"),)


@final
@attrs.frozen
class Stopping:
    """This is one stop under way. `deadline` is when `Overdue` is due, monotonic ns.

    `continued` says that a main process which was found stopped got its SIGCONT.
    """

    phase: StopPhase
    deadline: int | None
    main_gone: bool
    killed: bool = False
    continued: bool = False

    def on(self, event: StopEvent) -> tuple[Stopping, tuple[StopEffect, ...]]:
        """This takes one step; an event that means nothing here changes nothing."""
        if self.phase is StopPhase.DONE:
            return self, ()
        match event:
            case MainGone(left=0) | TreeEmpty():
                done = attrs.evolve(
                    self, phase=StopPhase.DONE, deadline=None, main_gone=True
                )
                return done, (Ended(self.killed),)
            case MainGone():
                if self.phase is StopPhase.ASKED:
                    swept = attrs.evolve(self, phase=StopPhase.SWEEPING, main_gone=True)
                    return swept, _SWEEP
                return attrs.evolve(self, main_gone=True), ()
            case MainHeld():
                # Once only: what stops itself again and again would keep us busy.
                if self.phase is not StopPhase.ASKED or self.continued:
                    return self, ()
                return attrs.evolve(self, continued=True), _CONTINUE
            case Overdue(now=now):
                if self.phase is StopPhase.KILLING:
                    stuck = attrs.evolve(self, phase=StopPhase.STUCK, deadline=None)
                    return stuck, (Stuck(),)
                if self.phase is StopPhase.STUCK:
                    return self, ()
                return self._kill(now), _KILL
            case Force(now=now):
                return self._kill(now), _KILL

    def _kill(self, now: int) -> Stopping:
        return attrs.evolve(
            self, phase=StopPhase.KILLING, deadline=now + STUCK_AFTER, killed=True
        )


def begin_stop(
    signal: str, *, now: int, timeout: int, frozen: bool
) -> tuple[Stopping, tuple[StopEffect, ...]]:
    """This begins with a living main process; `timeout` is nanoseconds.

    `frozen` says that the tree was stopped by SIGSTOP: it has to be continued, or the
    signal would stay pending (signal(7)).
    """
    effects: tuple[StopEffect, ...] = (SendSignal(signal, "main"),)
    if frozen:
        effects = (*effects, *_CONTINUE)
    return Stopping(StopPhase.ASKED, now + timeout, main_gone=False), effects


def begin_sweep(*, now: int, timeout: int) -> tuple[Stopping, tuple[StopEffect, ...]]:
    """This begins with a main process that has ended by itself and left others."""
    return Stopping(StopPhase.SWEEPING, now + timeout, main_gone=True), _SWEEP


def take_over_stop(
    before: Stopping | None,
    signal: str,
    *,
    now: int,
    timeout: int,
    main_gone: bool,
    frozen: bool,
) -> tuple[Stopping, tuple[StopEffect, ...]]:
    """This goes on with a stop that a control plane began which is no more.

    Whether its signals were sent nobody knows, so they are sent again; but the time
    does not begin again, and what had SIGKILL gets SIGKILL.
    """
    if main_gone:
        stopping, effects = begin_sweep(now=now, timeout=timeout)
    else:
        stopping, effects = begin_stop(signal, now=now, timeout=timeout, frozen=frozen)
    if before is None:
        return stopping, effects
    if before.killed:
        return stopping.on(Force(now))
    if before.deadline is not None:
        deadline = min(before.deadline, now + timeout)
        stopping = attrs.evolve(stopping, deadline=deadline)
    return stopping, effects
