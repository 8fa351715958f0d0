"""A keeper, an operating system and a clock for `Supervision`, small enough to trust.

`World` carries out effects as `Engine` and the keeper would: orders go down one wire
in order, what happens comes back in order, and in between anything may be late. It
knows the truth about processes, and `check` compares the machine with it.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from duende.core.config.model import DependencyState
from duende.core.config.plan import DaemonSpec
from duende.core.machines.effects import (
    AllDown,
    Arm,
    Deliver,
    Disarm,
    Effect,
    Publish,
    Spawn,
    StartProbe,
    StopProbe,
    TimerKind,
)
from duende.core.machines.host_events import (
    Exited,
    HostEvent,
    MainContinued,
    MainStopped,
    Notified,
    Spawned,
    SpawnFailed,
    TreeGone,
)
from duende.core.machines.lifecycle import ILLEGAL, TABLE
from duende.core.machines.readiness import ReadinessPhase
from duende.core.machines.reconcile import SlotFacts, reconcile_all
from duende.core.machines.record import Record
from duende.core.machines.stopping import StopPhase
from duende.core.machines.supervision import Supervision
from duende.core.types import DaemonStatus, ExitInfo

_S = DaemonStatus
_STARTED = (_S.STARTING, _S.RUNNING, _S.PAUSED)
EDGES = {
    (before.value, after.value)
    for before, row in TABLE.items()
    for after in row.values()
    if after is not None and after is not ILLEGAL
}


@attrs.define
class Slot:
    """This is the truth about one daemon's processes."""

    run: str | None = None
    alive: bool = False
    left: int = 0
    ready: bool = False
    paused: bool = False
    exit: ExitInfo | None = None
    spawned_at: int | None = None
    exited_at: int | None = None
    asked: bool = False  # the stop signal has come
    blob: dict[str, Any] | None = None

    @property
    def lives(self) -> bool:
        """Whether any process is there."""
        return self.alive or self.left > 0


class World:
    """This runs a `Supervision` against simulated processes."""

    def __init__(self, specs: list[DaemonSpec], cap: int) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.cap = cap
        self.now = 1_000
        self.numbers = itertools.count(1)
        self.slots = {name: Slot() for name in self.specs}
        self.fail_next_spawn = False
        self.jitter = 0.0
        self.history: list[HostEvent] = []
        self.old_timers: list[tuple[str, TimerKind, int]] = []
        self.last_attempts: dict[str, int] = {}
        self.running_since: dict[str, int] = {}
        self.by_itself: set[str] = set()
        self.forced = False
        self.heard_at: int | None = None
        self._new_control_plane()
        for spec in specs:
            self.machine.add(spec)
        self.follow()

    def _new_control_plane(self) -> None:
        self.machine = Supervision(
            {},
            start_concurrency=self.cap,
            draw=lambda: self.jitter,
            new_run=lambda: f"r{next(self.numbers)}",
        )
        self.wire: deque[tuple[Any, ...]] = deque()
        self.outbox: deque[HostEvent] = deque()
        self.timers: dict[tuple[str, TimerKind], int] = {}
        self.probes: dict[str, str] = {}
        self.blobs: dict[str, dict[str, Any]] = {}
        self.path: dict[str, str] = {}
        self.all_down = 0
        self.started_here: list[str] = []

    # -- the control plane's side -----------------------------------------------------

    def do(self, call: Callable[[], object], resets: tuple[str, ...] = ()) -> None:
        """This makes one step and carries its effects out; `resets` may lose attempts."""
        try:
            call()
        finally:
            self.follow(resets)

    def follow(self, resets: tuple[str, ...] = ()) -> None:
        """This carries out what the machine wants, and looks whether it may."""
        machine = self.machine
        self.started_here = []
        while effects := machine.drain():
            for effect in effects:
                self._perform(effect)
        touched, machine.touched = machine.touched, set()
        machine.intent_changed = False
        # In an order that a seed repeats.
        for name in sorted(touched & machine.records.keys()):
            record = machine.records[name]
            blob = record.to_blob()
            read = Record.from_blob(record.spec, json.loads(json.dumps(blob)))
            assert read.to_blob() == blob
            if blob != self.blobs.get(name):
                self.blobs[name] = blob
                self.wire.append(("put", name, json.dumps(blob)))
        self.check(resets)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Spawn(name=name, run=run):
                record = self.machine.records[name]
                assert record.wanted, "intent beats policy"
                assert not self.machine.closing, "nothing starts in a shutdown"
                assert record.run == run
                assert not self.slots[name].lives, "never two runs at once"
                self.blobs[name] = record.to_blob()
                self.wire.append(("spawn", name, run, json.dumps(self.blobs[name])))
            case Deliver():
                self.wire.append(
                    ("signal", effect.name, effect.run, effect.signal, effect.scope)
                )
            case StartProbe(name=name, run=run):
                assert name not in self.probes, "a probe would be lost"
                assert run == self.machine.records[name].run
                self.probes[name] = run
            case StopProbe(name=name):
                self.probes.pop(name, None)
            case Arm(name=name, kind=kind, at=at):
                self.timers[name, kind] = at
                self.old_timers.append((name, kind, at))
            case Disarm(name=name, kind=kind):
                self.timers.pop((name, kind), None)
            case Publish(daemon=name, type="state", from_=before, to=after):
                self._moved(str(name), str(before), str(after))
            case Publish():
                pass
            case AllDown():
                self.all_down += 1
                assert self.machine.closing
                assert not any(slot.lives for slot in self.slots.values())

    def _moved(self, name: str, before: str, after: str) -> None:
        assert self.path.get(name, "created") == before
        assert (before, after) in EDGES
        self.path[name] = after
        if after == "running":
            self.running_since[name] = self.heard_at or self.now
        record = self.machine.records[name]
        # Resumed ones may be more than the cap: what runs can't be un-started.
        if after == "starting" and before != "paused":
            assert self._blocked(record) is False, "started before its turn"
            if record.spec.config.readiness.kind != "started":
                self.started_here.append(name)
        if after == "stopping" and self.machine.closing and not self.forced:
            if not record.by_hand and name not in self.by_itself:
                for other in self.machine.records.values():
                    if name in other.spec.depends_on:
                        assert not self.slots[other.name].lives, "against the order"

    # -- commands ---------------------------------------------------------------------

    def command(self, verb: str, *names: str) -> None:
        """This gives a command as `Supervisor` would."""
        machine = self.machine
        match verb:
            case "start":
                closure = self._closure(names)
                self.do(lambda: machine.start(names, self.now), resets=closure)
            case "restart":
                closure = self._closure(names)
                self.do(lambda: machine.restart(names, self.now), resets=closure)
            case "stop":
                self.do(lambda: machine.stop(names, self.now))
            case "pause":
                self.do(lambda: machine.pause(names[0], self.now))
            case "resume":
                self.do(lambda: machine.resume(names[0], self.now))
            case "force":
                self.forced = True
                self.do(lambda: machine.force(self.now))
                self.forced = False

    def _closure(self, names: tuple[str, ...]) -> tuple[str, ...]:
        found: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.specs[name].depends_on
        return tuple(found)

    def shut_down(self, timeout: int) -> None:
        """This asks for a shutdown."""
        self.do(lambda: self.machine.shut_down(self.now, timeout))

    # -- the keeper's side ------------------------------------------------------------

    def work(self, lines: int) -> None:
        """This lets the keeper carry out some of its orders."""
        for _ in range(min(lines, len(self.wire))):
            order = self.wire.popleft()
            match order:
                case ("put", name, blob):
                    self.slots[name].blob = json.loads(blob)
                case ("spawn", name, run, blob):
                    self._spawn(name, run, json.loads(blob))
                case ("signal", name, run, signal, scope):
                    if self.slots[name].run == run:
                        self._signal(name, signal, scope)

    def _spawn(self, name: str, run: str, blob: dict[str, Any]) -> None:
        assert not self.slots[name].lives, "never two runs at once"
        fails, self.fail_next_spawn = self.fail_next_spawn, False
        self.slots[name] = Slot(run=run, blob=blob)
        if fails:
            self._tell(SpawnFailed(name, run, "exec", 2, "no such", False, self.now))
            return
        self.slots[name].alive = True
        self.slots[name].spawned_at = self.now
        self._tell(Spawned(name, run, 4000, self.now))

    def _signal(self, name: str, signal: str, scope: str) -> None:
        slot = self.slots[name]
        run = slot.run or ""
        if signal == "SIGKILL":
            assert scope == "tree"
            if slot.alive:
                self.end(name, ExitInfo(None, 9), 0)
            elif slot.left:
                self.empty(name)
        elif signal == "SIGSTOP" and slot.alive and not slot.paused:
            slot.paused = True
            self._tell(MainStopped(name, run, self.now))
        elif signal == "SIGCONT" and slot.alive and slot.paused and scope != "rest":
            slot.paused = False
            self._tell(MainContinued(name, run, self.now))
        elif signal == "SIGTERM":
            slot.asked = True

    def _tell(self, event: HostEvent) -> None:
        self.outbox.append(event)
        self.history.append(event)

    def hear(self, events: int) -> None:
        """This lets the control plane take in some of what the keeper said."""
        for _ in range(min(events, len(self.outbox))):
            event = self.outbox.popleft()
            self.give(event)

    def give(self, event: HostEvent) -> None:
        """This lets the control plane take in one event, wherever it comes from."""
        if isinstance(event, Exited):
            self.by_itself.add(event.name)
        self.heard_at = event.at
        self.do(lambda: self.machine.on_host(event))
        self.heard_at = None
        self.by_itself.discard(event.name)

    # -- what processes do --------------------------------------------------------------

    def end(self, name: str, exit_info: ExitInfo, left: int) -> None:
        """This ends a main process."""
        slot = self.slots[name]
        slot.alive, slot.left, slot.paused = False, left, False
        slot.exit, slot.exited_at = exit_info, self.now
        self._tell(Exited(name, slot.run or "", exit_info, left, self.now))

    def empty(self, name: str) -> None:
        """This ends what a main process has left."""
        slot = self.slots[name]
        slot.left = 0
        self._tell(TreeGone(name, slot.run or "", self.now))

    def say_ready(self, name: str) -> None:
        """This lets a process say or show that it is ready."""
        slot = self.slots[name]
        if self.specs[name].config.readiness.kind == "notify":
            slot.ready = True
            self._tell(Notified(name, slot.run or "", (("READY", "1"),), self.now))
        elif name in self.probes:
            run = self.probes[name]
            self.do(lambda: self.machine.on_probe(name, run, self.now))

    def freeze(self, name: str, *, frozen: bool) -> None:
        """This stops or continues a main process from outside."""
        slot = self.slots[name]
        if slot.paused is not frozen:
            slot.paused = frozen
            kind = MainStopped if frozen else MainContinued
            self._tell(kind(name, slot.run or "", self.now))

    # -- time ---------------------------------------------------------------------------

    def due(self) -> list[tuple[int, str, TimerKind]]:
        """This lists the timers that should have fired, earliest first."""
        order = [(at, name, kind.value) for (name, kind), at in self.timers.items()]
        return [
            (at, name, TimerKind(kind))
            for at, name, kind in sorted(order)
            if at <= self.now
        ]

    def fire(self, name: str, kind: TimerKind, at: int) -> None:
        """This fires a timer, due or long out of date."""
        if self.timers.get((name, kind)) == at:
            del self.timers[name, kind]
        resets: tuple[str, ...] = ()
        if kind is TimerKind.STABLE and name in self.machine.records:
            after = self.specs[name].config.restart.backoff.reset_after * 1e9
            if self.now - self.running_since.get(name, self.now) >= after:
                resets = (name,)
        self.forced = kind is TimerKind.SHUTDOWN
        self.do(lambda: self.machine.on_timer(name, kind, at, self.now), resets)
        self.forced = False

    def play_out(self, until: int) -> None:
        """This lets everything happen that is on its way, up to a time."""
        for _ in range(10_000):
            self.work(len(self.wire))
            self.hear(len(self.outbox))
            if self.wire or self.outbox:
                continue
            due = self.due()
            if due:
                at, name, kind = due[0]
                self.fire(name, kind, at)
                continue
            following = min(self.timers.values(), default=until + 1)
            if following > until:
                self.now = max(self.now, until)
                return
            self.now = following
        raise AssertionError("it never comes to rest")

    # -- losses -------------------------------------------------------------------------

    def facts(self) -> dict[str, SlotFacts | None]:
        """This is the keeper's snapshot."""
        return {
            name: None
            if slot.run is None
            else SlotFacts(
                run=slot.run,
                alive=slot.alive,
                pid=4000 if slot.alive else None,
                exit=slot.exit,
                left=slot.left,
                ready=slot.ready,
                paused=slot.paused,
                status_text="",
                spawned_at=slot.spawned_at,
                exited_at=slot.exited_at,
            )
            for name, slot in self.slots.items()
        }

    def lose_control_plane(self, kept: int) -> None:
        """This kills the control plane: the keeper got `kept` of its last orders."""
        while len(self.wire) > kept:
            self.wire.pop()
        self.work(kept)
        self._new_control_plane()
        for name, spec in self.specs.items():
            blob = self.slots[name].blob
            record = Record(spec) if blob is None else Record.from_blob(spec, blob)
            self.machine.add(spec, record)
            self.path[name] = record.status.value
            self.last_attempts[name] = record.retry.attempts
            self.running_since[name] = self.now
        self._agree()

    def lose_keeper(self, kept: int, heard: int) -> None:
        """This kills the keeper: some orders and some of its words are lost."""
        while len(self.wire) > kept:
            self.wire.pop()
        self.work(kept)
        self.hear(heard)
        self.wire.clear()
        self.outbox.clear()
        # What ran goes on; the last words of the control plane are put once more.
        for name, blob in self.blobs.items():
            self.slots[name].blob = blob
        self._agree()

    def _agree(self) -> None:
        self.by_itself.update(self.specs)
        facts = self.facts()
        self.do(lambda: reconcile_all(self.machine, facts, self.now))
        self.by_itself.clear()

    # -- what must be so after every step ---------------------------------------------

    def check(self, resets: tuple[str, ...]) -> None:
        """This holds the machine against its promises and the truth."""
        machine = self.machine
        records = machine.records.values()
        counted = {
            record.name
            for record in records
            if record.status is _S.STARTING
            and record.spec.config.readiness.kind != "started"
        }
        assert not self.started_here or len(counted) <= self.cap, "the cap"
        assert counted == machine._on_their_way
        living = {record.name for record in records if record.status.has_process}
        assert living == machine._alive
        assert self.all_down == (machine.closing and not living)
        for record in records:
            self._check_record(record, len(counted))
            self._check_attempts(record, resets)

    def _check_record(self, record: Record, on_their_way: int) -> None:
        machine, name, status = self.machine, record.name, record.status
        assert self.path.get(name, "created") == status.value
        mine = {kind: at for (who, kind), at in self.timers.items() if who == name}
        assert mine == record.timers
        slot = self.slots[name]
        if slot.lives:
            assert status.has_process, "an unknown process"
            assert record.run == slot.run, "an unknown run"
        if not record.wanted or machine.closing:
            assert status not in (_S.WAITING, _S.BACKOFF)
        ready_timer = mine.pop(TimerKind.READY, None)
        if status is _S.STARTING and record.spawned_at is not None:
            if record.readiness.phase is ReadinessPhase.PROBING:
                assert ready_timer == record.readiness.deadline is not None
                if record.spec.config.readiness.kind != "notify":
                    assert self.probes.get(name) == record.run
            else:
                assert record.readiness.phase is ReadinessPhase.OVERDUE
                assert not record.wanted
        else:
            assert ready_timer is None
            assert name not in self.probes
        restart_timer = mine.pop(TimerKind.RESTART, None)
        assert (status is _S.BACKOFF) == (restart_timer is not None)
        assert restart_timer == record.next_restart_at
        stop_timer = mine.pop(TimerKind.STOP, None)
        if status is _S.STOPPING:
            assert record.stopping is not None
            stuck = record.stopping.phase is StopPhase.STUCK
            assert (stop_timer is None) == stuck
        else:
            assert stop_timer is None
            assert record.stopping is None
        stable_timer = mine.pop(TimerKind.STABLE, None)
        if stable_timer is not None:
            assert status is _S.RUNNING
        elif status is _S.RUNNING:
            assert record.retry.attempts == 0
        if status is _S.WAITING:
            assert record.waits_for
            if name in machine._turn:
                assert on_their_way >= self.cap, "forgotten though there is room"
            else:
                assert self._blocked(record), "forgotten though nothing is missing"
        else:
            assert name not in machine._turn
            assert record.waits_for is None

    def _blocked(self, record: Record) -> bool:
        for name, edge in record.spec.depends_on.items():
            other = self.machine.records.get(name)
            if other is None:
                return True
            passed = {
                DependencyState.COMPLETED: other.completed,
                DependencyState.STARTED: other.completed
                or (other.status in _STARTED and other.spawned_at is not None),
                DependencyState.READY: other.completed or other.ready,
                DependencyState.HEALTHY: bool(other.ready and other.healthy),
            }[edge.until]
            if not passed:
                return True
        return False

    def _check_attempts(self, record: Record, resets: tuple[str, ...]) -> None:
        before = self.last_attempts.get(record.name, 0)
        attempts = record.retry.attempts
        assert attempts >= before or record.name in resets
        most = record.spec.config.restart.max_retries
        assert most is None or attempts <= most
        self.last_attempts[record.name] = attempts
