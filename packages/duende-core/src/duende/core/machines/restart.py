"""Restart or not, after how long, and when to give up.

The delay before restart n is min(initial * multiplier**n, max), then ± jitter; n
counts restarts since the last stable run. Intensity is a sliding window, as in
OTP's supervisor. All times are monotonic nanoseconds.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias, final

import attrs

from duende.core.config.model import RestartConfig
from duende.core.types import (
    BackoffConfig,
    ExitInfo,
    FailureReason,
    RestartPolicy,
)

__all__ = (
    "Decision",
    "End",
    "NANOSECONDS",
    "Finish",
    "RestartAfter",
    "RestartState",
    "backoff_delay",
    "classify_exit",
)

NANOSECONDS: Final = 1_000_000_000

_LONGEST: Final = 1e9
"""Seconds (32 years): no delay is longer, so that nanoseconds stay a small integer."""


@final
@attrs.frozen
class End:
    """This is an end nobody asked for: clean (`failure` is None) or a failure.

    `permanent` marks what would end the same way again, so that nobody retries.
    """

    failure: FailureReason | None
    text: str
    permanent: bool = False


@final
@attrs.frozen
class RestartAfter:
    """This decides for a restart after `delay` nanoseconds."""

    delay: int


@final
@attrs.frozen
class Finish:
    """This decides against a restart; with a `failure` the daemon is failed."""

    failure: FailureReason | None
    text: str


Decision: TypeAlias = RestartAfter | Finish


def backoff_delay(backoff: BackoffConfig, attempt: int, draw: float) -> int:
    """This is the delay before restart `attempt` (0 is the first), in nanoseconds.

    `draw` is a number in [-1, 1]; it is scaled by the configured jitter. Where even
    that would be more than 32 years, it is 32 years.
    """
    try:
        nominal = min(backoff.initial * backoff.multiplier**attempt, backoff.max)
    except OverflowError:
        nominal = backoff.max if backoff.initial else 0.0
    seconds = min(nominal * (1.0 + backoff.jitter * draw), _LONGEST)
    return max(0, math.floor(seconds * NANOSECONDS))


def classify_exit(
    exit_info: ExitInfo,
    *,
    left: int,
    ready: bool,
    main_told: bool,
    oneshot: bool,
    success_exit_codes: tuple[int, ...],
) -> End:
    """This says what an exit nobody asked for means.

    `left` counts processes of the tree that still live, `main_told` whether
    MAINPID= was received in this run.
    """
    if exit_info.is_unknown:
        return End(
            FailureReason.UNKNOWN,
            "its exit status could not be learnt",
            permanent=oneshot,
        )
    if exit_info.oom:
        return End(FailureReason.OOM, "out of memory")
    if exit_info.signal is not None:
        return End(FailureReason.SIGNAL, str(exit_info))
    if exit_info.code == 0 and left and not main_told:
        return End(
            FailureReason.DAEMONIZED,
            "its main process ended with 0 and left processes behind: it went to the "
            "background; make it stay in the foreground (nginx: 'daemon off;') or "
            "send MAINPID=",
            permanent=True,
        )
    if exit_info.code not in success_exit_codes:
        return End(FailureReason.EXIT_CODE, str(exit_info))
    if not ready and not oneshot:
        return End(FailureReason.NOT_READY, "it ended before it was ready")
    return End(None, "completed" if oneshot else str(exit_info))


@final
@attrs.frozen
class RestartState:
    """This is the memory of the restart policy for one daemon.

    `attempts` counts restarts since the last stable run, `recent` the times of the
    restarts that `max_in_window` still counts.
    """

    attempts: int = 0
    recent: tuple[int, ...] = ()

    def on_end(
        self, end: End, config: RestartConfig, *, oneshot: bool, now: int, draw: float
    ) -> tuple[RestartState, Decision]:
        """This decides what follows an end that nobody asked for."""
        if end.failure is None:
            if oneshot or config.policy in (
                RestartPolicy.NEVER,
                RestartPolicy.ON_FAILURE,
            ):
                return self, Finish(None, end.text)
        elif end.permanent or config.policy is RestartPolicy.NEVER:
            return self, Finish(end.failure, end.text)
        if config.max_retries is not None and self.attempts >= config.max_retries:
            return self, Finish(
                end.failure or FailureReason.EXIT_CODE,
                f"{end.text}; gave up after {self.attempts} restarts in a row",
            )
        recent = self.recent
        if config.max_in_window is not None:
            window = round(config.max_in_window.window * NANOSECONDS)
            recent = (*(at for at in recent if now - at < window), now)
            if len(recent) > config.max_in_window.count:
                return RestartState(self.attempts, recent), Finish(
                    FailureReason.INTENSITY,
                    f"{end.text}; more than {config.max_in_window.count} restarts "
                    f"within {config.max_in_window.window:g} s",
                )
        delay = backoff_delay(config.backoff, self.attempts, draw)
        return RestartState(self.attempts + 1, recent), RestartAfter(delay)

    def on_stable(self) -> RestartState:
        """This forgets the attempts: the daemon ran ready for `reset_after`."""
        return RestartState(0, self.recent)

    def on_operator(self) -> RestartState:
        """This forgets everything: a person started or stopped it."""
        return RestartState()
