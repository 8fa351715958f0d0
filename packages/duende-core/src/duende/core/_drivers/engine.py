"""The one place where the supervision machine meets the world.

Events go in one at a time; the effects of each are carried out before the next is
looked at, without ever awaiting in between. So decisions never interleave, and what
is written down is what was decided.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, assert_never

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from duende.core._drivers.clock import Clock, rfc3339
from duende.core.config.values import signal_number
from duende.core.errors import NotSupported
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
from duende.core.machines.host_events import HostEvent, Spawned
from duende.core.machines.record import Record
from duende.core.machines.supervision import Supervision
from duende.core.types import Event

__all__ = ("Engine", "Host", "Prober")

SUBSCRIBER_BACKLOG = 10_000
"""Events that wait for one slow reader before it is cut off."""


class Host(Protocol):
    """This carries out what touches a daemon's body; see `machines.host_events`."""

    platform: str

    def spawn(self, name: str, run: str) -> None:
        """Start this run; `Spawned` or `SpawnFailed` is delivered for it."""
        ...

    def signal(self, name: str, run: str, number: int, scope: str) -> None:
        """Send a signal; what is gone by now is passed over in silence."""
        ...

    def persist(self, name: str, blob: dict[str, Any], *, sync: bool) -> None:
        """Keep this for the next control plane."""
        ...

    def kill_scope(self, name: str) -> str | None:
        """By what means the daemon's whole tree is found, or None without one."""
        ...

    def remove(self, name: str) -> None:
        """Forget a daemon that has ended."""
        ...

    async def barrier(self) -> None:
        """Wait until what was ordered so far has been carried out."""
        ...


class Prober(Protocol):
    """This watches one run until it is ready; it returns when it is."""

    async def __call__(self, record: Record) -> None: ...


class Engine:
    """This drives one `Supervision`; everything runs on one event loop.

    Args:
        machine: What decides.
        clock: The time.
        host_of: Which host carries a daemon.
        prober: Watches a run until it is ready.
        sink: Gets events, several at a time, to be written down; must not block.
        first_seq: The number of the next event.
    """

    def __init__(
        self,
        machine: Supervision,
        clock: Clock,
        *,
        host_of: Callable[[str], Host],
        prober: Prober,
        sink: Callable[..., None],
        first_seq: int = 1,
    ) -> None:
        self.machine = machine
        self.clock = clock
        self.all_down = anyio.Event()
        self._host_of = host_of
        self._prober = prober
        self._sink = sink
        self._seq = first_seq
        self._unwritten: list[Event] = []
        self._inbox: deque[HostEvent] = deque()
        self._settling = False
        self._changed = anyio.Event()
        self._blobs: dict[str, dict[str, Any]] = {}
        self._timers: dict[tuple[str, TimerKind], int] = {}
        self._heap: list[tuple[int, int, str, TimerKind]] = []
        self._heap_count = 0
        self._timer_wake = anyio.Event()
        self._next_due: float = math.inf
        self._tasks: anyio.abc.TaskGroup | None = None
        self._probes: dict[str, anyio.CancelScope] = {}
        self._subscribers: set[MemoryObjectSendStream[Event]] = set()

    # -- going --------------------------------------------------------------------

    async def serve(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """This runs timers and probes until it is cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            self.settle()
            try:
                await self._serve_timers()
            finally:
                self._tasks = None

    def deliver(self, *events: HostEvent) -> None:
        """This takes in what hosts report, and carries out what follows."""
        self._inbox.extend(events)
        self.settle()

    def decide(self, call: Callable[[int], None]) -> None:
        """This lets the machine decide something now, and carries out what follows."""
        try:
            call(self.clock.now())
        finally:
            self.settle()

    def settle(self) -> None:
        """This carries out effects, and takes in events, until there are none."""
        if self._settling or self._tasks is None:
            return
        self._settling = True
        try:
            self._carry_out()
            while self._inbox:
                event = self._inbox.popleft()
                self.machine.on_host(event)
                if isinstance(event, Spawned):
                    self._note_start(event)
                self._carry_out()
            self._write_down()
            self._write_events()
        finally:
            self._settling = False

    def _note_start(self, event: Spawned) -> None:
        record = self.machine.records.get(event.name)
        if record is not None and record.run == event.run:
            age = (self.clock.now() - event.at) / 1_000_000_000
            record.started_at = self.clock.wall() - age

    def _carry_out(self) -> None:
        while effects := self.machine.drain():
            for effect in effects:
                self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Publish():
                self._publish(effect)
            case Spawn(name=name, run=run):
                self._blobs[name] = self.machine.records[name].to_blob()
                self._host_of(name).spawn(name, run)
            case Deliver(name=name, run=run, signal=text, scope=scope):
                # Written down first: who takes over after a crash in between must
                # know that the end it finds was asked for.
                self._put(name, sync=self.machine.intent_changed)
                self._signal(name, run, signal_number(text), scope)
            case Arm(name=name, kind=kind, at=at):
                self._arm(name, kind, at)
            case Disarm(name=name, kind=kind):
                self._timers.pop((name, kind), None)
            case StartProbe(name=name, run=run):
                self._start_probe(name, run)
            case StopProbe(name=name):
                scope_ = self._probes.pop(name, None)
                if scope_ is not None:
                    scope_.cancel()
            case AllDown():
                self.all_down.set()
            case _:
                assert_never(effect)

    def _signal(self, name: str, run: str, number: int, scope: str) -> None:
        try:
            self._host_of(name).signal(name, run, number, scope)
        except NotSupported as error:
            # The stop ladder goes on to SIGKILL, which every host can carry out.
            self._publish(Publish(name, "signal", reason=str(error)))

    def _write_events(self) -> None:
        if self._unwritten:
            events, self._unwritten = self._unwritten, []
            self._sink(*events)

    def _write_down(self) -> None:
        touched, self.machine.touched = self.machine.touched, set()
        if not touched:
            return
        sync, self.machine.intent_changed = self.machine.intent_changed, False
        for name in touched:
            self._put(name, sync=sync)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _put(self, name: str, *, sync: bool) -> None:
        record = self.machine.records.get(name)
        if record is None:
            return
        blob = record.to_blob()
        if blob != self._blobs.get(name):
            self._blobs[name] = blob
            self._host_of(name).persist(name, blob, sync=sync)

    def blob(self, name: str) -> dict[str, Any]:
        """This is what was last written down of a daemon."""
        return self._blobs[name]

    # -- waiting --------------------------------------------------------------------

    async def until(
        self, predicate: Callable[[], bool], timeout: float | None = None
    ) -> bool:
        """This waits until something is so; False when `timeout` seconds are over."""
        with anyio.move_on_after(timeout):
            while not predicate():
                await self._changed.wait()
            return True
        return predicate()

    # -- timers -----------------------------------------------------------------------

    def _arm(self, name: str, kind: TimerKind, at: int) -> None:
        self._timers[name, kind] = at
        self._heap_count += 1
        heapq.heappush(self._heap, (at, self._heap_count, name, kind))
        if at < self._next_due:
            self._timer_wake.set()

    async def _serve_timers(self) -> None:
        while True:
            now = self.clock.now()
            while self._heap and self._heap[0][0] <= now:
                at, _, name, kind = heapq.heappop(self._heap)
                if self._timers.get((name, kind)) == at:
                    del self._timers[name, kind]
                    self.machine.on_timer(name, kind, at, now)
            self.settle()
            while self._heap and (
                self._timers.get((self._heap[0][2], self._heap[0][3]))
                != self._heap[0][0]
            ):
                heapq.heappop(self._heap)
            self._next_due = self._heap[0][0] if self._heap else math.inf
            self._timer_wake = anyio.Event()
            if self._heap:
                delay = max(0, self._heap[0][0] - self.clock.now()) / 1_000_000_000
                with anyio.move_on_after(delay):
                    await self._timer_wake.wait()
            else:
                await self._timer_wake.wait()

    # -- probes -----------------------------------------------------------------------

    def _start_probe(self, name: str, run: str) -> None:
        if self._tasks is None:
            raise RuntimeError("effects are carried out only while the engine serves")
        before = self._probes.get(name)
        if before is not None:
            before.cancel()
        scope = self._probes[name] = anyio.CancelScope()
        self._tasks.start_soon(self._probe, name, run, scope)

    async def _probe(self, name: str, run: str, scope: anyio.CancelScope) -> None:
        with scope:
            await self._prober(self.machine.records[name])
            self.decide(lambda now: self.machine.on_probe(name, run, now))

    # -- events -----------------------------------------------------------------------

    def _publish(self, publish: Publish) -> None:
        event = Event(
            seq=self._seq,
            at=rfc3339(self.clock.wall()),
            daemon=publish.daemon,
            type=publish.type,
            from_=publish.from_,
            to=publish.to,
            reason=publish.reason,
            data=publish.data,
        )
        self._seq += 1
        self._unwritten.append(event)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber.send_nowait(event)
            except (anyio.WouldBlock, anyio.BrokenResourceError):
                self._subscribers.discard(subscriber)
                subscriber.close()

    def announce(
        self,
        type_: str,
        *,
        daemon: str | None = None,
        reason: str | None = None,
        data: dict[str, object] | None = None,
    ) -> None:
        """This publishes something that is no decision of the machine."""
        self._publish(Publish(daemon, type_, reason=reason, data=data or {}))
        self._write_events()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[MemoryObjectReceiveStream[Event]]:
        """This gives every event from now on; a reader that lags far is cut off."""
        send, receive = anyio.create_memory_object_stream[Event](SUBSCRIBER_BACKLOG)
        self._subscribers.add(send)
        try:
            with receive:
                yield receive
        finally:
            self._subscribers.discard(send)
            send.close()
