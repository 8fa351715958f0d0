"""All daemons together: what a command, an exit or a timer leads to.

One object, no I/O, no clock, no random source of its own: every method takes the
monotonic time (ns), and what is to be done is collected as effects, which the driver
takes with `drain`. Restart, stopping, readiness and lifecycle decide their part;
here they meet dependencies, operator intent, the cap on parallel starts, and
shutdown. It is built in layers: `ledger` (the records and the small moves),
`starting`, `ending`, and here what comes in from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from duende.core.config.plan import DaemonSpec
from duende.core.errors import ConfigError, InvalidState
from duende.core.machines.effects import (
    Effect,
    Publish,
    StopProbe,
    TimerKind,
)
from duende.core.machines.ending import Ending
from duende.core.machines.graph import render_cycle
from duende.core.machines.host_events import (
    Exited,
    HostEvent,
    MainChanged,
    MainContinued,
    MainStopped,
    Notified,
    OutputDropped,
    Spawned,
    SpawnFailed,
    TreeGone,
)
from duende.core.machines.lifecycle import Trigger
from duende.core.machines.readiness import DeadlinePassed, ReadinessPhase
from duende.core.machines.record import Record
from duende.core.machines.restart import End
from duende.core.machines.starting import STARTED
from duende.core.machines.stopping import MainHeld, Overdue, TreeEmpty
from duende.core.types import DaemonStatus, FailureReason

__all__ = ("Supervision",)

_S = DaemonStatus


class Supervision(Ending):
    """This decides for every daemon; see the module's text for the rules.

    Args:
        specs: The daemons, by name.
        start_concurrency: How many may be on their way to readiness at once. A
            daemon that is ready as soon as it was started does not count.
        draw: Gives a number in [-1, 1] for the jitter.
        new_run: Gives a fresh id for a start.
    """

    def __init__(
        self,
        specs: Mapping[str, DaemonSpec],
        *,
        start_concurrency: int,
        draw: Callable[[], float],
        new_run: Callable[[], str],
    ) -> None:
        super().__init__(
            start_concurrency=start_concurrency, draw=draw, new_run=new_run
        )
        for spec in specs.values():
            self.add(spec)

    # -- the set of daemons -----------------------------------------------------------

    def add(self, spec: DaemonSpec, record: Record | None = None) -> Record:
        """This takes a daemon in; nothing starts.

        A `record` of an earlier life is believed only after `reconcile`.

        Raises:
            InvalidState: There is one of this name.
            ConfigError: It would depend on itself.
        """
        if spec.name in self.records:
            raise InvalidState(f"daemon {spec.name!r} is there already")
        self._refuse_cycle(spec)
        self.records[spec.name] = record or Record(spec)
        for dependency in spec.depends_on:
            self._dependents.setdefault(dependency, []).append(spec.name)
        return self.records[spec.name]

    def _refuse_cycle(self, spec: DaemonSpec) -> None:
        # What nothing depends on yet can close no circle but one of its own.
        if not self._dependents.get(spec.name) and spec.name not in spec.depends_on:
            return
        came_from: dict[str, str] = {}
        todo = [spec.name]
        while todo:
            name = todo.pop()
            other = spec if name == spec.name else self.records[name].spec
            for dependency in other.depends_on:
                if dependency == spec.name:
                    path = [spec.name, name]
                    while path[-1] != spec.name:
                        path.append(came_from[path[-1]])
                    raise ConfigError(
                        f"daemon {spec.name!r} would depend on itself: "
                        f"{render_cycle(reversed(path))}",
                        "take one of these dependencies out",
                    )
                if dependency in self.records and dependency not in came_from:
                    came_from[dependency] = name
                    todo.append(dependency)

    def remove(self, name: str) -> None:
        """This drops a daemon that has no process.

        Raises:
            InvalidState: It still has one.
        """
        record = self.records[name]
        if record.status.has_process:
            raise InvalidState(
                f"daemon {name!r} is {record.status.value}", "stop it first"
            )
        for kind in tuple(record.timers):
            self._disarm(record, kind)
        for dependency in record.spec.depends_on:
            self._dependents[dependency].remove(name)
        self._turn.pop(name, None)
        self._improved.pop(name, None)
        del self.records[name]
        self.touched.discard(name)
        for dependent in self._dependents.get(name, ()):
            self._ask_again(self.records[dependent])
        self._go_on()

    # -- commands ---------------------------------------------------------------------

    def start(self, names: Iterable[str], now: int) -> None:
        """This starts daemons and what they depend on; what runs stays as it is.

        A oneshot that has completed runs again only if it is named itself. During a
        shutdown nothing starts any more.
        """
        self._start_or_restart(names, now, again=False)

    def restart(self, names: Iterable[str], now: int) -> None:
        """This stops what runs and starts it again; what does not run is started.

        What they depend on is started where it does not run, as by `start`.
        """
        self._start_or_restart(names, now, again=True)

    def _start_or_restart(self, names: Iterable[str], now: int, *, again: bool) -> None:
        if self.closing:
            return
        named = dict.fromkeys(names)
        for name in self._with_dependencies(named):
            record = self.records[name]
            self._intend(record, wanted=True, by_hand=False)
            if name not in named and record.completed:
                continue
            if not record.status.has_process:
                self._start(record)
            elif again and name in named:
                self._begin_stop(record, None, now)
                self._relaunch(record)
            elif record.status is _S.STOPPING and record.goal is None:
                self._relaunch(record)
        self._go_on()

    def _start(self, record: Record) -> None:
        if record.status is _S.WAITING:
            return
        record.retry = record.retry.on_operator()
        record.completed = False
        record.first_try_failed = False
        self._settle(record, None)
        self._request_launch(record)

    def _relaunch(self, record: Record) -> None:
        record.retry = record.retry.on_operator()
        record.first_try_failed = False
        record.relaunch = True
        self.touched.add(record.name)

    def _with_dependencies(self, names: Iterable[str]) -> list[str]:
        ordered: dict[str, None] = {}
        todo = list(names)[::-1]
        while todo:
            name = todo.pop()
            missing = [
                dependency
                for dependency in self.records[name].spec.depends_on
                if dependency in self.records and dependency not in ordered
            ]
            if missing:
                todo += [name, *reversed(missing)]
            else:
                ordered[name] = None
        return list(ordered)

    def stop(self, names: Iterable[str], now: int) -> None:
        """This stops daemons because a person asked for it; that is remembered."""
        for name in names:
            record = self.records[name]
            self._intend(record, wanted=False, by_hand=True)
            self._stop(record, now)
        self._go_on()

    def pause(self, name: str, now: int) -> None:
        """This stops a whole tree by SIGSTOP.

        Raises:
            InvalidState: There is no process to pause.
        """
        record = self.records[name]
        if record.status is _S.PAUSED:
            return
        if record.status not in STARTED or record.spawned_at is None:
            raise InvalidState(
                f"daemon {name!r} is {record.status.value}",
                "only what runs can be paused",
            )
        record.signalled_at = now
        self._deliver(record, "SIGSTOP", "tree")
        self._held(record)
        self._go_on()

    def resume(self, name: str, now: int) -> None:
        """This lets a paused tree go on.

        Raises:
            InvalidState: It is not paused.
        """
        record = self.records[name]
        if record.status is not _S.PAUSED:
            if record.status in STARTED:
                return
            raise InvalidState(
                f"daemon {name!r} is {record.status.value}", "it is not paused"
            )
        record.signalled_at = now
        self._deliver(record, "SIGCONT", "tree")
        self._released(record, now)
        self._go_on()

    def shut_down(self, now: int, timeout: int, reason: str | None = None) -> None:
        """This stops everything, dependents first, within `timeout` ns, then by force.

        Asked again, it can only bring the end nearer.
        """
        self._close(now, timeout, reason)
        self._go_on()

    def force(self, now: int, names: Iterable[str] | None = None) -> None:
        """This uses SIGKILL on what is to end, without waiting any longer."""
        self._forced(tuple(self.records) if names is None else names, now)
        self._go_on()

    # -- going on after a loss (see `reconcile`) --------------------------------------

    def hold_starts(self, records: Iterable[Record]) -> None:
        """This lets nothing start until `let_starts_go`: what is believed may be wrong."""
        self._starts_held = True
        for record in records:
            self._place(record)

    def let_starts_go(self, now: int) -> None:
        """This starts what may start, and stops what runs unwanted."""
        self._starts_held = False
        self.stop_unwanted(now)
        for record in tuple(self.records.values()):
            self._ask_again(record)
        self._go_on()

    def send(self, effect: Effect) -> None:
        """This adds an effect that was decided elsewhere."""
        self._effects.append(effect)

    def arm(self, record: Record, kind: TimerKind, at: int) -> None:
        """This sets a timer that another control plane had set."""
        self._arm(record, kind, at)

    def adopt(self, record: Record) -> None:
        """This takes in a run that nobody expected to be alive."""
        self._turn.pop(record.name, None)
        self._disarm(record, TimerKind.RESTART)
        record.next_restart_at = None
        record.waits_for = None
        record.stopping, record.goal, record.relaunch = None, None, False
        record.readiness = record.new_readiness()
        self.touched.add(record.name)
        self._move(record, Trigger.LAUNCH, "found alive")

    def go_on_starting(self, record: Record, now: int) -> None:
        """This goes on with a start that another control plane ordered."""
        if record.readiness.is_ready:
            self._become_ready(record, now)
            return
        self._effects.append(StopProbe(record.name))
        self._watch(record)

    def go_on_running(self, record: Record, now: int) -> None:
        """This goes on counting how long a daemon has been stable."""
        if TimerKind.STABLE not in record.timers:
            self._arm_stable(record, now)

    # -- what happens -----------------------------------------------------------------

    def on_host(self, event: HostEvent) -> None:
        """This takes in what a host reports; what is out of date changes nothing."""
        record = self.records.get(event.name)
        if record is None:
            return
        if isinstance(event, OutputDropped):
            data: dict[str, object] = {"bytes": event.bytes}
            self._emit(Publish(event.name, "log_dropped", data=data))
            return
        if event.run != record.run or not record.status.has_process:
            return
        match event:
            case Spawned():
                self._spawned(record, event)
            case SpawnFailed():
                self._spawn_failed(record, event)
            case Exited():
                self._exited(record, event)
            case TreeGone(at=at):
                self._step_stop(record, TreeEmpty(), at)
            case Notified(fields=fields, at=at):
                self._notified(record, dict(fields), at)
            case MainStopped(at=at):
                record.is_stopped = True
                self.touched.add(record.name)
                # One from before the last pause or resume tells what is no longer so.
                if record.status is _S.STOPPING:
                    self._step_stop(record, MainHeld(), at)
                elif at >= record.signalled_at:
                    self._held(record)
            case MainContinued(at=at):
                record.is_stopped = False
                if at >= record.signalled_at:
                    self._released(record, at)
            case MainChanged(pid=pid):
                record.pid = pid
                record.main_told = True
                self.touched.add(record.name)
        self._go_on()

    def _notified(self, record: Record, fields: dict[str, str], now: int) -> None:
        if "STATUS" in fields:
            record.status_text = fields["STATUS"]
            self.touched.add(record.name)
        if fields.get("RELOADING") == "1":
            record.reloading = True
        if fields.get("READY") == "1":
            if record.reloading:
                record.reloading = False
                record.reloads += 1
                self.touched.add(record.name)
            if record.spec.config.readiness.kind == "notify":
                self._passed(record, now)

    def on_probe(self, name: str, run: str, now: int) -> None:
        """This takes in that a readiness check of this run has passed."""
        record = self.records.get(name)
        if record is not None and record.run == run:
            self._passed(record, now)
            self._go_on()

    def on_timer(self, name: str, kind: TimerKind, at: int, now: int) -> None:
        """This takes in a timer; one that was set anew or disarmed changes nothing."""
        if kind is TimerKind.SHUTDOWN:
            if self._shutdown_at == at:
                self._shutdown_at = None
                self.force(now)
            return
        record = self.records.get(name)
        if record is None or record.timers.get(kind) != at:
            return
        del record.timers[kind]
        match kind:
            case TimerKind.READY:
                record.readiness = record.readiness.on(DeadlinePassed(max(at, now)))
                # What is to end anyway does so in its turn, ready or not.
                if record.readiness.phase is ReadinessPhase.OVERDUE and record.wanted:
                    seconds = record.spec.config.readiness.timeout
                    text = f"not ready within {seconds:g} s"
                    self._begin_stop(record, End(FailureReason.NOT_READY, text), now)
            case TimerKind.RESTART:
                record.restarts += 1
                self._request_launch(record)
            case TimerKind.STOP:
                self._step_stop(record, Overdue(now), now)
            case TimerKind.STABLE:
                record.retry = record.retry.on_stable()
                self.touched.add(name)
        self._go_on()
