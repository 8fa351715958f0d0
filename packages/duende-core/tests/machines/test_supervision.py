"""Supervision by example: what was suspected, and what was found."""

from __future__ import annotations

import pytest

from duende.core.config.model import ReadyConfig, RestartConfig, StopConfig
from duende.core.errors import ConfigError, InvalidState
from duende.core.machines.effects import (
    AllDown,
    Arm,
    Deliver,
    Publish,
    Spawn,
    TimerKind,
)
from duende.core.machines.host_events import (
    Exited,
    MainChanged,
    MainContinued,
    MainStopped,
    Notified,
    OutputDropped,
    Spawned,
    SpawnFailed,
    TreeGone,
)
from duende.core.machines.supervision import Supervision
from duende.core.types import BackoffConfig, DaemonStatus, ExitInfo, FailureReason

from .builders import SECOND, make_spec, make_supervision, statuses, take

S = DaemonStatus
NOTIFY = ReadyConfig(notify=True, timeout=5.0)
AT_ONCE = RestartConfig(backoff=BackoffConfig(initial=0.0))


def run_of(machine: Supervision, name: str) -> str:
    """The id of a daemon's present run."""
    run = machine.records[name].run
    assert run is not None
    return run


def spawned(machine: Supervision, name: str, at: int = 0) -> None:
    """The keeper says that it has started the present run."""
    machine.on_host(Spawned(name, run_of(machine, name), 77, at))


def ready(machine: Supervision, name: str, at: int = 0) -> None:
    """The present run says READY=1."""
    fields = (("READY", "1"),)
    machine.on_host(Notified(name, run_of(machine, name), fields, at))


def exited(
    machine: Supervision, name: str, code: int = 1, left: int = 0, at: int = 0
) -> None:
    """The present run's main process has ended."""
    run = run_of(machine, name)
    machine.on_host(Exited(name, run, ExitInfo(code), left, at))


def fire(machine: Supervision, name: str, kind: TimerKind) -> int:
    """A timer fires when it is due; gives that time."""
    at = machine.records[name].timers[kind]
    machine.on_timer(name, kind, at, at)
    return at


# -- starting ---------------------------------------------------------------------------


def test_start_during_backoff_leaves_no_timer() -> None:
    """The old back-off does not fire into the new run and start a second one (P3)."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    exited(machine, "web")
    at = machine.records["web"].timers[TimerKind.RESTART]
    machine.start(("web",), 1)
    machine.drain()
    machine.on_timer("web", TimerKind.RESTART, at, at)
    assert [] == take(machine, Spawn)


def test_a_failed_dependency_is_started_too() -> None:
    """`start web` starts what it depends on, also where that had failed or was stopped."""
    machine = make_supervision(make_spec("db"), make_spec("web", {"db": "ready"}))
    machine.start(("db",), 0)
    machine.on_host(SpawnFailed("db", "r1", "config", None, "no", True, 0))
    assert S.FAILED is machine.records["db"].status
    machine.start(("web",), 0)
    assert {"db": S.STARTING, "web": S.WAITING} == statuses(machine)
    spawned(machine, "db")
    assert {"db": S.RUNNING, "web": S.STARTING} == statuses(machine)


def test_restart_starts_a_stopped_dependency_too() -> None:
    """`restart web` does not wait for ever for what was stopped by hand."""
    machine = make_supervision(make_spec("db"), make_spec("web", {"db": "ready"}))
    machine.start(("web",), 0)
    spawned(machine, "db")
    spawned(machine, "web")
    machine.stop(("db",), 0)
    exited(machine, "db", 0)
    assert {"db": S.STOPPED, "web": S.RUNNING} == statuses(machine)
    machine.restart(("web",), 0)
    assert {"db": S.STARTING, "web": S.STOPPING} == statuses(machine)


def test_a_completed_oneshot_runs_again_only_by_name() -> None:
    """A dependency that is done stays done; `start` and `restart` of it run it again."""
    machine = make_supervision(
        make_spec("migrate", oneshot=True), make_spec("web", {"migrate": "completed"})
    )
    machine.start(("web",), 0)
    spawned(machine, "migrate")
    assert S.WAITING is machine.records["web"].status
    exited(machine, "migrate", 0)
    assert {"migrate": S.STOPPED, "web": S.STARTING} == statuses(machine)
    spawned(machine, "web")
    machine.stop(("web",), 0)
    exited(machine, "web", 0)
    machine.start(("web",), 0)
    assert {"migrate": S.STOPPED, "web": S.STARTING} == statuses(machine)
    machine.start(("migrate",), 0)
    assert S.STARTING is machine.records["migrate"].status


def test_a_removed_dependency_is_named() -> None:
    """Who waits for what is no longer defined says so, and goes on when it is again."""
    machine = make_supervision(
        make_spec("db", ready=NOTIFY), make_spec("web", {"db": "ready"})
    )
    machine.start(("web",), 0)
    machine.stop(("db",), 0)
    with pytest.raises(InvalidState, match="stop it first"):
        machine.remove("db")
    exited(machine, "db", 0)
    machine.remove("db")
    assert "waits for db, which is not defined" == machine.records["web"].waits_for
    machine.add(make_spec("db"))
    machine.start(("db",), 0)
    spawned(machine, "db")
    assert S.STARTING is machine.records["web"].status


def test_a_waiting_daemon_can_be_removed() -> None:
    """It leaves the queue for a turn, too."""
    machine = make_supervision(
        make_spec("a", ready=NOTIFY), make_spec("b", ready=NOTIFY), cap=1
    )
    machine.start(("a", "b"), 0)
    machine.remove("b")
    spawned(machine, "a")
    ready(machine, "a")
    assert {"a": S.RUNNING} == statuses(machine)


def test_turns_are_fair() -> None:
    """What crashes and restarts at once queues behind who waits already."""
    machine = make_supervision(
        *(make_spec(name, ready=NOTIFY, restart=AT_ONCE) for name in "abc"), cap=1
    )
    machine.start(("a", "b", "c"), 0)
    launched = [effect.name for effect in take(machine, Spawn)]
    for _ in range(6):
        name = launched[-1]
        spawned(machine, name)
        exited(machine, name)
        launched += [effect.name for effect in take(machine, Spawn)]
    assert list("abcabca") == launched


def test_a_death_while_starting_may_have_to_wait() -> None:
    """Restarted at once, but what it depends on is gone: it waits."""
    machine = make_supervision(
        make_spec("db"),
        make_spec("web", {"db": "ready"}, ready=NOTIFY, restart=AT_ONCE),
    )
    machine.start(("web",), 0)
    spawned(machine, "db")
    spawned(machine, "web")
    machine.stop(("db",), 0)
    exited(machine, "db", 0)
    exited(machine, "web")
    assert S.WAITING is machine.records["web"].status


def test_a_dying_daemon_satisfies_nobody() -> None:
    """The turn that a death frees is not given to who needs the dead one started."""
    machine = make_supervision(
        make_spec("a", ready=NOTIFY),
        make_spec("b", {"a": "started"}, ready=NOTIFY),
        cap=1,
    )
    machine.start(("b",), 0)
    spawned(machine, "a")
    machine.drain()
    exited(machine, "a")
    assert [] == take(machine, Spawn)
    assert "waits for a to be started" == machine.records["b"].waits_for


def test_started_means_that_there_is_a_process() -> None:
    """An order that the keeper has not carried out yet satisfies nobody."""
    machine = make_supervision(make_spec("a"), make_spec("b", {"a": "started"}))
    machine.start(("b",), 0)
    assert {"a": S.STARTING, "b": S.WAITING} == statuses(machine)
    spawned(machine, "a")
    assert {"a": S.RUNNING, "b": S.STARTING} == statuses(machine)


def test_what_was_started_can_not_fail_to_start() -> None:
    """A second answer to the same order changes nothing."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    machine.on_host(SpawnFailed("web", "r1", "exec", 2, "no", False, 1))
    assert {"web": S.RUNNING} == statuses(machine)


def test_a_paused_start_blocks_nobody() -> None:
    """While it is paused its deadline does not run, and its turn is another's."""
    machine = make_supervision(
        make_spec("a", ready=NOTIFY), make_spec("b", ready=NOTIFY), cap=1
    )
    machine.start(("a", "b"), 0)
    spawned(machine, "a")
    machine.pause("a", 1)
    assert {"a": S.PAUSED, "b": S.STARTING} == statuses(machine)
    assert TimerKind.READY not in machine.records["a"].timers
    machine.resume("a", 2 * SECOND)
    assert 7 * SECOND == machine.records["a"].timers[TimerKind.READY]


def test_ready_while_paused_counts() -> None:
    """READY=1 that was on its way is not lost: who waits goes on at once."""
    machine = make_supervision(
        make_spec("a", ready=NOTIFY), make_spec("b", {"a": "ready"})
    )
    machine.start(("b",), 0)
    spawned(machine, "a")
    machine.pause("a", 1)
    ready(machine, "a", 2)
    assert {"a": S.PAUSED, "b": S.STARTING} == statuses(machine)
    machine.resume("a", 3)
    assert S.RUNNING is machine.records["a"].status


def test_never_ready_is_stopped_and_counts_as_a_failure() -> None:
    """The READY timer leads to a stop, then to a back-off for not-ready (P9)."""
    machine = make_supervision(make_spec("web", ready=NOTIFY))
    machine.start(("web",), 0)
    spawned(machine, "web")
    fire(machine, "web", TimerKind.READY)
    record = machine.records["web"]
    assert S.STOPPING is record.status
    exited(machine, "web", 0, at=6 * SECOND)
    assert (S.BACKOFF, FailureReason.NOT_READY) == (record.status, record.failure)
    assert record.first_try_failed
    assert "not-ready: not ready within 5 s" == record.reason


def test_a_circle_is_refused() -> None:
    """A daemon that would depend on itself is named with the whole way round."""
    machine = make_supervision(
        make_spec("a", {"c": "ready"}), make_spec("b", {"a": "ready"})
    )
    with pytest.raises(ConfigError, match="c -> b -> a -> c"):
        machine.add(make_spec("c", {"b": "ready"}))
    with pytest.raises(ConfigError, match="d -> d"):
        machine.add(make_spec("d", {"d": "ready"}))
    assert {"a", "b"} == set(machine.records)


def test_a_name_is_taken_once() -> None:
    """A second daemon of the same name is refused, the first unharmed."""
    machine = make_supervision(make_spec("a"))
    record = machine.records["a"]
    with pytest.raises(InvalidState, match="'a' is there already"):
        machine.add(make_spec("a"))
    assert record is machine.records["a"]


# -- pausing ----------------------------------------------------------------------------


def test_a_late_word_of_an_old_pause_changes_nothing() -> None:
    """pause, resume, and then the keeper's word that it was stopped."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    machine.pause("web", 10)
    machine.resume("web", 20)
    run = run_of(machine, "web")
    machine.on_host(MainStopped("web", run, 15))
    assert S.RUNNING is machine.records["web"].status
    machine.on_host(MainStopped("web", run, 25))
    assert {"web": S.PAUSED} == statuses(machine)
    machine.pause("web", 30)
    machine.on_host(MainContinued("web", run, 40))
    assert S.RUNNING is machine.records["web"].status


def test_what_does_not_run_is_not_paused() -> None:
    """Pausing and resuming need a process, and say so; nothing is changed."""
    machine = make_supervision(make_spec("web"))
    for verb in (machine.pause, machine.resume):
        with pytest.raises(InvalidState, match="'web' is created"):
            verb("web", 0)
    machine.start(("web",), 0)
    with pytest.raises(InvalidState, match="starting; only what runs"):
        machine.pause("web", 0)
    machine.resume("web", 0)
    assert S.STARTING is machine.records["web"].status


def test_a_stop_wakes_what_was_stopped_meanwhile() -> None:
    """SIGSTOP from outside during a stop is answered by SIGCONT, as for a paused one."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    machine.stop(("web",), 1)
    machine.drain()
    run = run_of(machine, "web")
    machine.on_host(MainStopped("web", run, 2))
    assert [Deliver("web", run, "SIGCONT", "tree")] == take(machine, Deliver)


# -- stopping -----------------------------------------------------------------------------


def test_restart_before_the_start_was_confirmed() -> None:
    """The unconfirmed run is stopped, and one new run follows it."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    machine.restart(("web",), 0)
    assert ["r1"] == [effect.run for effect in take(machine, Spawn)]
    machine.on_host(Spawned("web", "r1", 77, 1))
    machine.on_host(Exited("web", "r1", ExitInfo(None, 15), 0, 2))
    assert ["r2"] == [effect.run for effect in take(machine, Spawn)]
    assert 0 == machine.records["web"].restarts


def test_stop_before_the_start_fails() -> None:
    """A stop that was asked for ends in stopped, also when nothing ever ran."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    machine.stop(("web",), 0)
    machine.on_host(SpawnFailed("web", "r1", "exec", 2, "no such file", False, 1))
    record = machine.records["web"]
    assert (S.STOPPED, None, {}) == (record.status, record.reason, record.timers)


def test_stop_again_while_the_rest_is_swept() -> None:
    """The ladder goes on where it was, and what followed the death is forgotten."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    exited(machine, "web", 0, left=2)
    deadline = machine.records["web"].timers[TimerKind.STOP]
    assert "daemonized" in str(machine.records["web"].reason)
    machine.stop(("web",), 1)
    assert deadline == machine.records["web"].timers[TimerKind.STOP]
    machine.on_host(TreeGone("web", run_of(machine, "web"), 2))
    assert S.STOPPED is machine.records["web"].status


def test_start_while_stopping_starts_again() -> None:
    """The last word counts: stop, then start, ends in a new run."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    machine.stop(("web",), 0)
    machine.start(("web",), 0)
    exited(machine, "web")
    assert {"web": S.STARTING} == statuses(machine)
    machine.stop(("web",), 0)
    machine.start(("web",), 0)
    machine.stop(("web",), 0)
    exited(machine, "web")
    assert S.STOPPED is machine.records["web"].status


def test_an_asked_stop_ends_in_stopped_whatever_it_took() -> None:
    """SIGKILL after the timeout, then stopped; `exit` keeps the signal."""
    machine = make_supervision(make_spec("web", stop=StopConfig(timeout=3.0)))
    machine.start(("web",), 0)
    spawned(machine, "web")
    machine.stop(("web",), 0)
    machine.drain()
    assert 3 * SECOND == fire(machine, "web", TimerKind.STOP)
    assert ["SIGKILL"] == [effect.signal for effect in take(machine, Deliver)]
    fire(machine, "web", TimerKind.STOP)
    assert "still there after SIGKILL" in str(machine.records["web"].reason)
    machine.on_host(Exited("web", "r1", ExitInfo(None, 9), 0, 9 * SECOND))
    record = machine.records["web"]
    assert (S.STOPPED, None) == (record.status, record.reason)
    assert ExitInfo(None, 9) == record.exit


def test_force_leaves_alone_what_is_wanted() -> None:
    """`force` is for what is to end; what a restart ends comes back."""
    machine = make_supervision(make_spec("a"), make_spec("b"))
    machine.start(("a", "b"), 0)
    spawned(machine, "a")
    spawned(machine, "b")
    machine.restart(("b",), 0)
    machine.drain()
    machine.force(1)
    assert [Deliver("b", "r2", "SIGKILL", "tree")] == take(machine, Deliver)
    machine.on_host(Exited("b", "r2", ExitInfo(None, 9), 0, 2))
    assert {"a": S.RUNNING, "b": S.STARTING} == statuses(machine)


def test_force_while_waiting() -> None:
    """There is nothing to kill, and nothing is changed."""
    machine = make_supervision(
        make_spec("a", ready=NOTIFY), make_spec("b", {"a": "ready"})
    )
    machine.start(("b",), 0)
    machine.drain()
    machine.force(1, ("b",))
    assert ([], S.WAITING) == (machine.drain(), machine.records["b"].status)


@pytest.mark.parametrize("status", [S.CREATED, S.WAITING, S.FAILED, S.BACKOFF])
def test_stop_of_what_does_not_run(status: DaemonStatus) -> None:
    """It is stopped at once, without a process ever having been touched (P6)."""
    machine = make_supervision(
        make_spec("a", ready=NOTIFY), make_spec("b", {"a": "ready"})
    )
    if status is S.WAITING:
        machine.start(("b",), 0)
    elif status is not S.CREATED:
        machine.start(("a", "b"), 0)
        spawned(machine, "a")
        ready(machine, "a")
        permanent = status is S.FAILED
        run = run_of(machine, "b")
        machine.on_host(SpawnFailed("b", run, "exec", 2, "no", permanent, 0))
    record = machine.records["b"]
    assert status is record.status
    machine.drain()
    machine.stop(("b",), 1)
    assert [] == take(machine, Deliver)
    assert (S.STOPPED, {}, True) == (record.status, record.timers, record.by_hand)


# -- shutting down --------------------------------------------------------------------------


def _chain() -> Supervision:
    machine = make_supervision(
        make_spec("db"),
        make_spec("migrate", {"db": "ready"}, oneshot=True),
        make_spec("web", {"migrate": "completed"}),
    )
    machine.start(("web",), 0)
    spawned(machine, "db")
    spawned(machine, "migrate")
    exited(machine, "migrate", 0)
    spawned(machine, "web")
    machine.drain()
    return machine


def test_the_order_of_stopping_reaches_through_what_has_ended() -> None:
    """`web` needs `migrate`, which is done, which needed `db`: `db` ends last."""
    machine = _chain()
    machine.shut_down(1, 60 * SECOND)
    assert {"db": S.RUNNING, "migrate": S.STOPPED, "web": S.STOPPING} == statuses(
        machine
    )
    exited(machine, "web", 0)
    assert S.STOPPING is machine.records["db"].status
    assert [] == take(machine, AllDown)
    exited(machine, "db", 0)
    assert [AllDown()] == take(machine, AllDown)


def test_the_shutdown_timer_kills_everything() -> None:
    """When its time is over, what still lives gets SIGKILL, in whatever order."""
    machine = _chain()
    machine.shut_down(1, 2 * SECOND)
    machine.drain()
    machine.on_timer("", TimerKind.SHUTDOWN, 1 + 2 * SECOND, 1 + 2 * SECOND)
    killed = [e.name for e in take(machine, Deliver) if e.signal == "SIGKILL"]
    assert ["db", "web"] == sorted(killed)
    machine.on_timer("", TimerKind.SHUTDOWN, 1 + 2 * SECOND, 3 * SECOND)
    assert [] == machine.drain()


def test_a_second_shutdown_can_only_be_sooner() -> None:
    """A shorter timeout counts, a longer one does not."""
    machine = _chain()
    machine.shut_down(0, 60 * SECOND)
    machine.drain()
    machine.shut_down(1, 90 * SECOND)
    assert [] == machine.drain()
    machine.shut_down(1, 5 * SECOND)
    assert [Arm("", TimerKind.SHUTDOWN, 1 + 5 * SECOND)] == machine.drain()


def test_nothing_starts_during_a_shutdown() -> None:
    """start and restart change nothing any more, not even the intent."""
    machine = _chain()
    machine.shut_down(0, 60 * SECOND)
    machine.drain()
    machine.start(("db", "web"), 1)
    machine.restart(("db", "web"), 1)
    assert [] == machine.drain()
    exited(machine, "web", 0)
    exited(machine, "db", 0)
    assert {S.STOPPED} == set(statuses(machine).values())


def test_the_end_of_an_essential_daemon_ends_everything() -> None:
    """It stays failed with its reason, the rest is stopped, and that is said once."""
    machine = make_supervision(
        make_spec("a", stop=StopConfig(timeout=3.0)),
        make_spec("b", {"a": "ready"}, essential=True, restart="never"),
        make_spec("c", {"a": "ready"}, stop=StopConfig(timeout=4.0)),
    )
    machine.start(("a", "b", "c"), 0)
    for name in "abc":
        spawned(machine, name)
    machine.drain()
    exited(machine, "b", 1)
    assert {"a": S.RUNNING, "b": S.FAILED, "c": S.STOPPING} == statuses(machine)
    # The time for it is the longest chain of stops, unless one was set.
    assert Arm("", TimerKind.SHUTDOWN, 13 * SECOND) in machine.drain()
    assert "essential daemon b has ended: exit-code: exit code 1" == machine.ended_by
    exited(machine, "c", 0)
    exited(machine, "a", 0)
    assert [AllDown()] == take(machine, AllDown)
    assert "exit-code: exit code 1" == machine.records["b"].reason


def test_the_end_of_a_lonely_essential_daemon() -> None:
    """Where nothing else runs, everything is down at once, and said once."""
    machine = make_supervision(make_spec("a", essential=True))
    machine.set_shutdown_timeout(SECOND)
    machine.start(("a",), 0)
    spawned(machine, "a")
    exited(machine, "a", 0)
    assert [AllDown()] == take(machine, AllDown)


def test_what_waits_for_its_turn_to_end_is_not_judged() -> None:
    """Overdue or dead in a shutdown: no failure, no restart, and no change of order."""
    machine = make_supervision(
        make_spec("a", ready=NOTIFY), make_spec("b", {"a": "started"})
    )
    machine.start(("b",), 0)
    spawned(machine, "a")
    spawned(machine, "b")
    machine.shut_down(0, 60 * SECOND)
    fire(machine, "a", TimerKind.READY)
    assert {"a": S.STARTING, "b": S.STOPPING} == statuses(machine)
    exited(machine, "a")
    assert {"a": S.STOPPED, "b": S.STOPPING} == statuses(machine)


# -- what is said on the way ------------------------------------------------------------------


def test_attempts_are_forgotten_after_a_stable_run() -> None:
    """Ready for `reset_after` begins the back-off anew; a pause begins that anew."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    exited(machine, "web")
    fire(machine, "web", TimerKind.RESTART)
    record = machine.records["web"]
    spawned(machine, "web", at=2 * SECOND)
    assert (1, 12 * SECOND) == (record.retry.attempts, record.timers[TimerKind.STABLE])
    machine.pause("web", 3 * SECOND)
    assert TimerKind.STABLE not in record.timers
    machine.resume("web", 4 * SECOND)
    assert 14 * SECOND == fire(machine, "web", TimerKind.STABLE)
    assert (0, 1) == (record.retry.attempts, record.restarts)


def test_notifications_are_taken_in() -> None:
    """STATUS is shown, RELOADING then READY counts a reload, MAINPID a new main."""
    machine = make_supervision(make_spec("web", ready=NOTIFY))
    machine.start(("web",), 0)
    spawned(machine, "web")
    ready(machine, "web")
    record, run = machine.records["web"], run_of(machine, "web")
    machine.on_host(Notified("web", run, (("STATUS", "busy"), ("RELOADING", "1")), 1))
    assert ("busy", 0) == (record.status_text, record.reloads)
    ready(machine, "web", 2)
    assert 1 == record.reloads
    machine.on_host(MainChanged("web", run, 78, 3))
    assert (78, True) == (record.pid, record.main_told)
    exited(machine, "web", 0, left=1)
    assert "exit code 0" == record.reason


def test_lost_output_is_told() -> None:
    """Dropped bytes are published, whatever the daemon does; unknown names are not."""
    machine = make_supervision(make_spec("web"))
    machine.on_host(OutputDropped("web", 9, 1))
    machine.on_host(OutputDropped("who", 9, 1))
    assert [Publish("web", "log_dropped", data={"bytes": 9})] == machine.drain()


def test_what_a_task_says_last_is_its_reason() -> None:
    """The text of a task's error stands in the reason."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    machine.on_host(Exited("web", "r1", ExitInfo(1), 0, 1, "ValueError: no"))
    assert "exit-code: ValueError: no" == machine.records["web"].reason


def test_an_exit_is_told_once() -> None:
    """The same end said twice, or one of an earlier run, changes nothing."""
    machine = make_supervision(make_spec("web"))
    machine.start(("web",), 0)
    spawned(machine, "web")
    exited(machine, "web", left=1)
    machine.drain()
    exited(machine, "web", left=1)
    machine.on_host(Exited("web", "r0", ExitInfo(1), 0, 1))
    assert [] == machine.drain()
