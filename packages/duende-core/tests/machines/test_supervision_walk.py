"""Long lives: the same world as in the model test, driven further by a seed.

Hypothesis finds short ways into trouble and shows them; these walks reach what needs
many steps. A walk that fails is repeated by its seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from duende.core.config.model import Intensity, ReadyConfig, RestartConfig, StopConfig
from duende.core.config.plan import DaemonSpec
from duende.core.errors import InvalidState
from duende.core.machines.host_events import Spawned
from duende.core.types import BackoffConfig, ExitInfo

from .builders import SECOND, make_spec
from .world import World

STEPS = 150
LIVES = 25
LONGEST_STOP = 3.0
EXITS = (
    ExitInfo(0),
    ExitInfo(0),
    ExitInfo(1),
    ExitInfo(3),
    ExitInfo(None, 15),
    ExitInfo(None, 11),
)


def _project(source: random.Random) -> list[DaemonSpec]:
    density = source.random()
    specs: list[DaemonSpec] = []
    for name in "abcdefg"[: source.randint(1, 7)]:
        edges = {}
        for other in specs:
            if source.random() < density:
                until = ["started", "ready"] + ["completed"] * other.config.oneshot * 2
                edges[other.name] = source.choice(until)
        ready: dict[str, Any] = source.choice(
            [{}, {"notify": True}, {"tcp": "127.0.0.1:1"}]
        )
        specs.append(
            make_spec(
                name,
                edges,
                oneshot=source.random() < 0.25,
                essential=source.random() < 0.04,
                restart=RestartConfig(
                    policy=source.choice(
                        ["always", "on-failure", "unless-stopped", "never"]
                    ),
                    max_retries=source.choice([None, None, 1, 3]),
                    success_exit_codes=source.choice([(0,), (0, 3)]),
                    max_in_window=source.choice(
                        [None, None, Intensity(count=2, window=5.0)]
                    ),
                    backoff=BackoffConfig(
                        initial=source.choice([0.0, 1.0]), reset_after=4.0
                    ),
                ),
                ready=ReadyConfig(timeout=2.0, **ready),
                stop=StopConfig(timeout=source.choice([1.0, LONGEST_STOP])),
            )
        )
    return specs


class Walk:
    """One long life of one project."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.world = World(_project(self.source), self.source.randint(1, 3))
        self.names = sorted(self.world.specs)
        # Each life has its own temper, or all would be alike.
        self.prompt = self.source.choice([0.0, 0.5, 0.95])
        losses = self.source.choice([0, 1, 5])
        self.steps: list[tuple[int, Callable[[], object]]] = [
            (4, lambda: self.world.command("start", self._some())),
            (3, lambda: self.world.command("start", *self.names)),
            (4, lambda: self.world.command("stop", self._some())),
            (1, lambda: self.world.command("stop", *self.names)),
            (4, lambda: self.world.command("restart", self._some())),
            (1, lambda: self.world.command("restart", *self.names)),
            (4, lambda: self._try("pause")),
            (5, lambda: self._try("resume")),
            (1, lambda: self.world.command("force")),
            (8, self._keeper_works),
            (8, lambda: self.world.hear(self.source.randint(1, 4))),
            (8, self._exit),
            (4, self._left_overs_end),
            (10, lambda: self._living(self.world.say_ready)),
            (3, self._all_ready),
            (3, self._freeze),
            (4, self._old_event),
            (4, self._old_timer),
            (8, self._fire),
            (6, lambda: self._pass(self.source.choice([0.1, 1.0, 2.0, 5.0]))),
            (4, lambda: self._play(self.source.choice([0.5, 2.0, 5.0]))),
            (losses, self._lose_control_plane),
            (losses, self._lose_keeper),
        ]
        if self.source.random() < 0.3:
            self.steps.append(
                (1, lambda: self.world.shut_down(self.source.randint(0, 9) * SECOND))
            )

    def go(self) -> None:
        """This takes all the steps, and then ends everything."""
        world, source = self.world, self.source
        weights = [weight for weight, _ in self.steps]
        world.command("start", *self.names)
        for _ in range(STEPS):
            world.jitter = source.uniform(-1, 1)
            source.choices(self.steps, weights)[0][1]()
            if source.random() < self.prompt:
                world.play_out(world.now)
        self._end()

    def _end(self) -> None:
        world = self.world
        unwanted = [n for n, r in world.machine.records.items() if not r.wanted]
        world.play_out(world.now + round(LONGEST_STOP * len(self.names) + 1) * SECOND)
        for name in unwanted:
            assert not world.slots[name].lives
        world.shut_down(2 * SECOND)
        world.play_out(world.now + 3 * SECOND)
        assert not any(slot.lives for slot in world.slots.values())
        assert world.all_down == 1

    # -- steps ----------------------------------------------------------------------------

    def _some(self) -> str:
        return self.source.choice(self.names)

    def _living(self, act: Callable[[str], object]) -> None:
        living = [name for name in self.names if self.world.slots[name].alive]
        if living:
            act(self.source.choice(living))

    def _try(self, verb: str) -> None:
        try:
            self._living(lambda name: self.world.command(verb, name))
        except InvalidState:
            pass

    def _all_ready(self) -> None:
        for name in self.names:
            if self.world.slots[name].alive:
                self.world.say_ready(name)

    def _keeper_works(self) -> None:
        self.world.fail_next_spawn = self.source.random() < 0.2
        self.world.work(self.source.randint(1, 6))
        self.world.fail_next_spawn = False

    def _exit(self) -> None:
        def act(name: str) -> None:
            if not self.world.slots[name].paused:
                left = self.source.choice([0, 0, 0, 2])
                self.world.end(name, self.source.choice(EXITS), left)

        self._living(act)

    def _left_overs_end(self) -> None:
        for name in self.names:
            if self.world.slots[name].left and self.source.random() < 0.5:
                self.world.empty(name)

    def _freeze(self) -> None:
        frozen = self.source.random() < 0.5
        self._living(lambda name: self.world.freeze(name, frozen=frozen))

    def _old_event(self) -> None:
        if not self.world.history:
            return
        event = self.source.choice(self.world.history)
        run = self.world.machine.records[event.name].run
        repeated = isinstance(event, Spawned) and event not in self.world.outbox
        if repeated or getattr(event, "run", None) != run:
            self.world.give(event)

    def _old_timer(self) -> None:
        if self.world.old_timers:
            name, kind, at = self.source.choice(self.world.old_timers)
            if at <= self.world.now:
                self.world.fire(name, kind, at)

    def _fire(self) -> None:
        due = self.world.due()
        if due:
            at, name, kind = self.source.choice(due)
            self.world.fire(name, kind, at)

    def _pass(self, seconds: float) -> None:
        self.world.now += round(seconds * SECOND)

    def _play(self, seconds: float) -> None:
        self.world.play_out(self.world.now + round(seconds * SECOND))

    def _lose_control_plane(self) -> None:
        self.world.lose_control_plane(self.source.randint(0, len(self.world.wire)))

    def _lose_keeper(self) -> None:
        world = self.world
        kept = self.source.randint(0, len(world.wire))
        world.lose_keeper(kept, self.source.randint(0, len(world.outbox)))


@pytest.mark.parametrize("batch", range(10))
def test_long_lives(batch: int) -> None:
    """Thousands of random steps break no promise; the failing seed is in the note."""
    for seed in range(batch * LIVES, batch * LIVES + LIVES):
        try:
            Walk(seed).go()
        except Exception as error:
            error.add_note(f"in the walk of seed {seed}")
            raise
