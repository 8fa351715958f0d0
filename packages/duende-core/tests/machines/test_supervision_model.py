"""Anything may happen at any moment, in any order: the promises hold all the same."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from duende.core.config.model import Intensity, ReadyConfig, RestartConfig, StopConfig
from duende.core.config.plan import DaemonSpec
from duende.core.errors import InvalidState
from duende.core.machines.host_events import Spawned
from duende.core.types import BackoffConfig, ExitInfo

from .builders import SECOND, make_spec
from .world import World

NAMES = ("a", "b", "c", "d", "e")
LONGEST_STOP = 3


@st.composite
def restart_configs(draw: st.DrawFn) -> RestartConfig:
    """This draws what a restart policy can be made of."""
    return RestartConfig(
        policy=draw(
            st.sampled_from(["always", "on-failure", "unless-stopped", "never"])
        ),
        max_retries=draw(st.sampled_from([None, None, 1, 3])),
        success_exit_codes=draw(st.sampled_from([(0,), (0, 3)])),
        max_in_window=draw(
            st.sampled_from([None, None, Intensity(count=2, window=5.0)])
        ),
        backoff=BackoffConfig(
            initial=draw(st.sampled_from([0.0, 1.0])), jitter=0.1, reset_after=4.0
        ),
    )


@st.composite
def projects(draw: st.DrawFn) -> list[DaemonSpec]:
    """This draws a few daemons whose dependencies have no cycle."""
    specs: list[DaemonSpec] = []
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        edges = {}
        for other in specs:
            if draw(st.booleans()):
                until = ["started", "ready"]
                if other.config.oneshot:
                    until.append("completed")
                edges[other.name] = draw(st.sampled_from(until))
        ready: dict[str, Any] = draw(
            st.sampled_from([{}, {"notify": True}, {"tcp": "127.0.0.1:1"}])
        )
        specs.append(
            make_spec(
                name,
                edges,
                oneshot=draw(st.sampled_from([False, False, True])),
                essential=draw(st.sampled_from([False] * 5 + [True])),
                restart=draw(restart_configs()),
                ready=ReadyConfig(timeout=2.0, **ready),
                stop=StopConfig(timeout=draw(st.sampled_from([1.0, LONGEST_STOP]))),
            )
        )
    return specs


class Anything(RuleBasedStateMachine):
    """Commands, processes, time and losses, in any order."""

    world: World

    @initialize(specs=projects(), cap=st.integers(1, 3), prompt=st.booleans())
    def begin(self, specs: list[DaemonSpec], cap: int, prompt: bool) -> None:
        # Where all that is said arrives at once, more of a life fits into a run.
        self.prompt = prompt
        self.world = World(specs, cap)
        self.names = sorted(self.world.specs)
        self.world.command("start", *self.names)

    def _some(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self.names))

    def _living(self, data: st.DataObject) -> str:
        """One with a process, where there is one."""
        living = [name for name in self.names if self.world.slots[name].alive]
        return data.draw(st.sampled_from(living or self.names))

    @invariant()
    def what_is_said_arrives(self) -> None:
        if hasattr(self, "world") and self.prompt:
            self.world.play_out(self.world.now)

    # -- commands -----------------------------------------------------------------------

    @rule(
        data=st.data(),
        verb=st.sampled_from(["stop", "restart", "pause", "pause", "resume", "resume"]),
    )
    def command(self, data: st.DataObject, verb: str) -> None:
        try:
            self.world.command(verb, self._living(data))
        except InvalidState:
            assert verb in ("pause", "resume")

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.world.command("start", self._some(data))

    @rule(verb=st.sampled_from(["start", "start", "start", "stop", "restart"]))
    def command_all(self, verb: str) -> None:
        self.world.command(verb, *self.names)

    @precondition(lambda self: not self.world.machine.closing)
    @rule(seldom=st.integers(0, 5), timeout=st.integers(0, 10))
    def shut_down(self, seldom: int, timeout: int) -> None:
        if seldom == 0:
            self.world.shut_down(timeout * SECOND)

    @rule(seldom=st.integers(0, 3))
    def force(self, seldom: int) -> None:
        if seldom == 0:
            self.world.command("force")

    # -- processes ----------------------------------------------------------------------

    @rule(lines=st.integers(1, 9), fails=st.sampled_from([False, False, False, True]))
    def keeper_works(self, lines: int, fails: bool) -> None:
        self.world.fail_next_spawn = fails
        self.world.work(lines)
        self.world.fail_next_spawn = False

    @rule(events=st.integers(1, 9), jitter=st.sampled_from([-1.0, 0.0, 1.0]))
    def hear(self, events: int, jitter: float) -> None:
        self.world.jitter = jitter
        self.world.hear(events)

    @rule()
    def all_arrives(self) -> None:
        """Nothing is on its way any more."""
        self.world.play_out(self.world.now)

    @rule(
        data=st.data(),
        how=st.sampled_from(
            [
                ExitInfo(0),
                ExitInfo(1),
                ExitInfo(3),
                ExitInfo(None, 15),
                ExitInfo(None, 11),
            ]
        ),
        left=st.sampled_from([0, 0, 0, 2]),
    )
    def exits(self, data: st.DataObject, how: ExitInfo, left: int) -> None:
        name = self._living(data)
        slot = self.world.slots[name]
        # What is stopped can't end, except by SIGKILL.
        if slot.alive and not slot.paused:
            self.world.end(name, how, left)

    @rule(data=st.data())
    def left_overs_end(self, data: st.DataObject) -> None:
        name = self._some(data)
        if self.world.slots[name].left:
            self.world.empty(name)

    @rule(data=st.data())
    def says_ready(self, data: st.DataObject) -> None:
        name = self._living(data)
        if self.world.slots[name].alive:
            self.world.say_ready(name)

    @rule()
    def all_are_ready(self) -> None:
        for name in self.names:
            if self.world.slots[name].alive:
                self.world.say_ready(name)

    @rule(data=st.data(), frozen=st.booleans())
    def stopped_from_outside(self, data: st.DataObject, frozen: bool) -> None:
        name = self._living(data)
        if self.world.slots[name].alive:
            self.world.freeze(name, frozen=frozen)

    @precondition(lambda self: self.world.history)
    @rule(data=st.data())
    def an_old_event_comes_again(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.world.history))
        run = self.world.machine.records[event.name].run
        if isinstance(event, Spawned) and event in self.world.outbox:
            return
        if getattr(event, "run", None) != run or isinstance(event, Spawned):
            self.world.give(event)

    # -- time ---------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += round(seconds * SECOND)

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0]))
    def all_goes_its_way(self, seconds: float) -> None:
        self.world.play_out(self.world.now + round(seconds * SECOND))

    @rule(data=st.data())
    def a_timer_fires(self, data: st.DataObject) -> None:
        due = self.world.due()
        if due:
            at, name, kind = data.draw(st.sampled_from(due))
            self.world.fire(name, kind, at)

    @precondition(lambda self: self.world.old_timers)
    @rule(data=st.data())
    def an_old_timer_fires_again(self, data: st.DataObject) -> None:
        name, kind, at = data.draw(st.sampled_from(self.world.old_timers))
        if at <= self.world.now:
            self.world.fire(name, kind, at)

    # -- losses -------------------------------------------------------------------------

    @rule(data=st.data(), seldom=st.integers(0, 2))
    def control_plane_is_lost(self, data: st.DataObject, seldom: int) -> None:
        if seldom:
            return
        kept = data.draw(st.integers(0, len(self.world.wire)))
        self.world.lose_control_plane(kept)

    @rule(data=st.data(), seldom=st.integers(0, 2))
    def keeper_is_lost(self, data: st.DataObject, seldom: int) -> None:
        if seldom:
            return
        kept = data.draw(st.integers(0, len(self.world.wire)))
        heard = data.draw(st.integers(0, len(self.world.outbox)))
        self.world.lose_keeper(kept, heard)

    # -- the end --------------------------------------------------------------------------

    def teardown(self) -> None:
        """What is unwanted goes within its time; then a shutdown ends the rest."""
        if not hasattr(self, "world"):
            return
        world = self.world
        unwanted = [n for n, r in world.machine.records.items() if not r.wanted]
        chain = LONGEST_STOP * len(self.names) + 1
        world.play_out(world.now + chain * SECOND)
        for name in unwanted:
            assert not world.slots[name].lives
        world.shut_down(2 * SECOND)
        world.play_out(world.now + 3 * SECOND)
        assert not any(slot.lives for slot in world.slots.values())
        assert world.all_down == 1


TestAnything = Anything.TestCase
TestAnything.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
