"""Back-off, intensity, giving up, and what an exit means."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from duende.core.config.model import Intensity, RestartConfig
from duende.core.machines.restart import (
    NANOSECONDS,
    Decision,
    End,
    Finish,
    RestartAfter,
    RestartState,
    backoff_delay,
    classify_exit,
)
from duende.core.types import BackoffConfig, ExitInfo, FailureReason, RestartPolicy

CLEAN = End(None, "exit code 0")
CRASH = End(FailureReason.EXIT_CODE, "exit code 1")
FINAL = End(FailureReason.BAD_CONFIG, "no such user", permanent=True)

backoffs = st.builds(
    BackoffConfig,
    initial=st.floats(0, 1e308),
    multiplier=st.floats(1, 1e308),
    max=st.floats(0, 1e308),
    jitter=st.floats(0, 1),
    reset_after=st.floats(0, 1e6),
)


# -- back-off ---------------------------------------------------------------------------


@given(backoff=backoffs, attempt=st.integers(0, 10**6), draw=st.floats(-1, 1))
def test_the_delay_is_bounded(
    backoff: BackoffConfig, attempt: int, draw: float
) -> None:
    """No delay is negative, nor longer than `max` and its jitter, nor overflows."""
    delay = backoff_delay(backoff, attempt, draw)
    assert 0 <= delay
    if backoff.max < 1e9:
        most = backoff.max * (1 + backoff.jitter) * NANOSECONDS
        assert delay <= most * (1 + 1e-12)


@given(backoff=backoffs, attempt=st.integers(0, 2000))
def test_the_nominal_delay_never_shrinks(backoff: BackoffConfig, attempt: int) -> None:
    """Without jitter, each delay is at least as long as the one before."""
    earlier, later = (backoff_delay(backoff, n, 0.0) for n in (attempt, attempt + 1))
    assert earlier <= later


def test_the_default_schedule() -> None:
    """The defaults double from one second to sixty, and stay there."""
    delays = [backoff_delay(BackoffConfig(), n, 0.0) / NANOSECONDS for n in range(9)]
    assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == delays


def test_no_initial_delay_means_at_once() -> None:
    """`initial = 0` stays 0, however often and with any multiplier."""
    backoff = BackoffConfig(initial=0, multiplier=1e300)
    assert {0} == {backoff_delay(backoff, n, 1.0) for n in (0, 1, 2, 10**6)}


def test_the_jitter_is_even_on_both_sides() -> None:
    """Over many draws the delays fill ±10 % evenly around the nominal one."""
    source = random.Random(7)
    backoff = BackoffConfig(initial=10, jitter=0.1)
    delays = [
        backoff_delay(backoff, 0, source.uniform(-1, 1)) / NANOSECONDS
        for _ in range(5000)
    ]
    assert 9.0 <= min(delays) < 9.01
    assert 10.99 < max(delays) <= 11.0
    assert abs(statistics.fmean(delays) - 10) < 0.05
    # The standard deviation of an even spread over 2 is 2 / sqrt(12).
    assert abs(statistics.stdev(delays) - 2 / 12**0.5) < 0.02


# -- policy, written out ------------------------------------------------------------------

RESTARTS = "restarts"
STOPS = "stops"
FAILS = "fails"

POLICIES = {
    # policy: clean end, failure, permanent failure
    RestartPolicy.NEVER: (STOPS, FAILS, FAILS),
    RestartPolicy.ALWAYS: (RESTARTS, RESTARTS, FAILS),
    RestartPolicy.ON_FAILURE: (STOPS, RESTARTS, FAILS),
    RestartPolicy.UNLESS_STOPPED: (RESTARTS, RESTARTS, FAILS),
}


def _verdict(decision: Decision) -> str:
    if isinstance(decision, RestartAfter):
        return RESTARTS
    return STOPS if decision.failure is None else FAILS


def test_every_policy_is_written() -> None:
    """Each policy has its row."""
    assert set(RestartPolicy) == set(POLICIES)


@pytest.mark.parametrize("policy", RestartPolicy)
@pytest.mark.parametrize("oneshot", [False, True])
def test_policy(policy: RestartPolicy, oneshot: bool) -> None:
    """Each policy answers each end as written; a oneshot's clean end is its last."""
    config = RestartConfig(policy=policy)
    for end, expected in zip((CLEAN, CRASH, FINAL), POLICIES[policy], strict=True):
        _, decision = RestartState().on_end(
            end, config, oneshot=oneshot, now=0, draw=0.0
        )
        if oneshot and end is CLEAN:
            expected = STOPS
        assert expected == _verdict(decision)


@given(most=st.integers(1, 9))
def test_it_gives_up_after_max_retries(most: int) -> None:
    """`max_retries` restarts in a row are made, then it has failed for its reason."""
    config = RestartConfig(max_retries=most)
    state, decisions = RestartState(), []
    for _ in range(most + 1):
        state, decision = state.on_end(CRASH, config, oneshot=False, now=0, draw=0.0)
        decisions.append(_verdict(decision))
    assert [RESTARTS] * most + [FAILS] == decisions
    assert isinstance(decision, Finish)
    assert FailureReason.EXIT_CODE is decision.failure
    assert f"gave up after {most} restarts in a row" in decision.text


def test_clean_ends_count_too() -> None:
    """With `always`, a program that keeps ending cleanly is given up as well."""
    config = RestartConfig(policy=RestartPolicy.ALWAYS, max_retries=1)
    state, _ = RestartState().on_end(CLEAN, config, oneshot=False, now=0, draw=0.0)
    _, decision = state.on_end(CLEAN, config, oneshot=False, now=0, draw=0.0)
    assert FAILS == _verdict(decision)


def test_intensity_has_its_own_reason() -> None:
    """One restart more than the window allows ends in restart-intensity."""
    config = RestartConfig(max_in_window=Intensity(count=1, window=60.0))
    state, _ = RestartState().on_end(CRASH, config, oneshot=False, now=0, draw=0.0)
    _, decision = state.on_end(CRASH, config, oneshot=False, now=5, draw=0.0)
    assert isinstance(decision, Finish)
    assert FailureReason.INTENSITY is decision.failure


def test_a_restart_leaves_the_window_when_it_is_over() -> None:
    """Exactly one window later the earlier restart does not count any more."""
    config = RestartConfig(max_in_window=Intensity(count=1, window=60.0))
    state, _ = RestartState().on_end(CRASH, config, oneshot=False, now=0, draw=0.0)
    for now, expected in ((60 * NANOSECONDS - 1, FAILS), (60 * NANOSECONDS, RESTARTS)):
        _, decision = state.on_end(CRASH, config, oneshot=False, now=now, draw=0.0)
        assert expected == _verdict(decision)


class Storm(RuleBasedStateMachine):
    """Ends, stable runs and operators at any time, against plain lists."""

    @initialize(
        count=st.integers(1, 4),
        window=st.integers(1, 20),
        most=st.none() | st.integers(1, 5),
        initial=st.sampled_from([0.0, 0.5, 3.0]),
    )
    def begin(self, count: int, window: int, most: int | None, initial: float) -> None:
        self.config = RestartConfig(
            policy=RestartPolicy.ALWAYS,
            max_retries=most,
            max_in_window=Intensity(count=count, window=float(window)),
            backoff=BackoffConfig(initial=initial, max=10.0, jitter=0.5),
        )
        self.now = 0
        self.state = RestartState()
        self.restarted_at: list[int] = []
        self.in_a_row = 0

    @rule(passed=st.integers(0, 25 * NANOSECONDS))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    @rule(end=st.sampled_from([CLEAN, CRASH]), draw=st.floats(-1, 1))
    def ends(self, end: End, draw: float) -> None:
        self.state, decision = self.state.on_end(
            end, self.config, oneshot=False, now=self.now, draw=draw
        )
        assert self.config.max_in_window is not None
        window = self.config.max_in_window.window * NANOSECONDS
        recent = [at for at in self.restarted_at if self.now - at < window]
        most = self.config.max_retries
        if most is not None and self.in_a_row >= most:
            assert FAILS == _verdict(decision)
        elif len(recent) >= self.config.max_in_window.count:
            assert isinstance(decision, Finish)
            assert FailureReason.INTENSITY is decision.failure
            # The refused attempt is in the window, too.
            self.restarted_at.append(self.now)
        else:
            expected = backoff_delay(self.config.backoff, self.in_a_row, draw)
            assert RestartAfter(expected) == decision
            self.restarted_at.append(self.now)
            self.in_a_row += 1

    @rule()
    def is_stable(self) -> None:
        self.state = self.state.on_stable()
        self.in_a_row = 0

    @rule()
    def operator(self) -> None:
        self.state = self.state.on_operator()
        self.in_a_row = 0
        self.restarted_at.clear()

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "state"):
            assert self.in_a_row == self.state.attempts
            recent = list(self.state.recent)
            assert recent == sorted(recent)
            assert recent == self.restarted_at[len(self.restarted_at) - len(recent) :]


TestStorm = Storm.TestCase
TestStorm.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


# -- what an exit means -------------------------------------------------------------------

EXITS = {
    "unknown": ExitInfo(),
    "oom": ExitInfo(None, 9, oom=True),
    "signal": ExitInfo(None, 11),
    "0": ExitInfo(0),
    "1": ExitInfo(1),
    "3": ExitInfo(3),
}


def _expected(
    how: str,
    left: bool,
    ready: bool,
    told: bool,
    oneshot: bool,
    codes: tuple[int, ...],
) -> tuple[FailureReason | None, bool]:
    """This is the contract's text as a list of rules: the first that fits counts."""
    rules = [
        (how == "unknown", FailureReason.UNKNOWN, oneshot),
        (how == "oom", FailureReason.OOM, False),
        (how == "signal", FailureReason.SIGNAL, False),
        (how == "0" and left and not told, FailureReason.DAEMONIZED, True),
        (how not in map(str, codes), FailureReason.EXIT_CODE, False),
        (not ready and not oneshot, FailureReason.NOT_READY, False),
        (True, None, False),
    ]
    return next((failure, final) for fits, failure, final in rules if fits)


@pytest.mark.parametrize("how", EXITS)
@pytest.mark.parametrize("codes", [(0,), (0, 3), (3,), ()])
def test_what_an_exit_means(how: str, codes: tuple[int, ...]) -> None:
    """Every exit, with and without left-overs, readiness, MAINPID and oneshot."""
    for left, ready, told, oneshot in itertools.product([False, True], repeat=4):
        end = classify_exit(
            EXITS[how],
            left=2 * left,
            ready=ready,
            main_told=told,
            oneshot=oneshot,
            success_exit_codes=codes,
        )
        expected = _expected(how, left, ready, told, oneshot, codes)
        assert expected == (end.failure, end.permanent)
        assert end.text
        if end.failure is FailureReason.DAEMONIZED:
            assert "daemon off" in end.text
        if how == "signal":
            assert "SIGSEGV" in end.text
