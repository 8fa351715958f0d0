"""Break each promise on purpose, and see its test fail: `python e2e/sabotage.py [P1 …]`.

A test that can't fail proves nothing. For each row of the table the installed
package is copied and put in front of it (PYTHONPATH). With the faithful copy the test
has to pass; with one piece of its text replaced it has to fail. The record is printed;
the exit code is 0 when every sabotage was noticed. A row whose text is no longer in
the file is an error of its own: bring it up to date with the code.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

HERE = Path(__file__).parent


@attrs.frozen
class Sabotage:
    """This is one broken promise: what is replaced in which file, and who notices."""

    promise: str
    file: str
    edits: tuple[tuple[str, str], ...]
    """What is replaced by what; more than one where a promise is kept twice."""
    test: str
    story: str


TABLE = (
    Sabotage(
        "P1",
        "keeper.py",
        (
            (
                "data = read_file(self._leader_children, 1 << 22)",
                "data = None",
            ),
        ),
        "test_trees.py::test_p1_crash_ends_the_whole_tree",
        "orphans are not looked for",
    ),
    Sabotage(
        "P1",
        "machines/stopping.py",
        (
            (
                "if self.phase is StopPhase.ASKED:\n                    swept =",
                "if True:\n"
                "                    return self.on(TreeEmpty())\n"
                "                if self.phase is StopPhase.ASKED:\n"
                "                    swept =",
            ),
        ),
        "test_trees.py::test_p1_stop_ends_the_whole_tree",
        "a stop is over when the main process is",
    ),
    Sabotage(
        "P2",
        "keeper.py",
        (
            (
                "        while True:\n"
                "            try:\n"
                "                found = os.waitid(",
                "        for _ in range(1):\n"
                "            try:\n"
                "                found = os.waitid(",
            ),
        ),
        "test_trees.py::test_p2_no_zombie",
        "one SIGCHLD, one wait",
    ),
    Sabotage(
        "P3",
        "keeper.py",
        (
            (
                "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
                "pass",
            ),
        ),
        "test_starting.py::test_p3_twenty_racing_starters",
        "the project has no lock",
    ),
    Sabotage(
        "P4",
        "keeper.py",
        (
            (
                "            or status.start != slot.start\n"
                "            or (slot.ino not in (None, inode) and slot.ino)\n",
                "",
            ),
        ),
        "test_starting.py::test_p4_a_reused_pid_is_a_stranger",
        "who has the recorded pid is believed to be ours",
    ),
    Sabotage(
        "P4",
        "keeper.py",
        (
            (
                "            == self._keeper.boot_id.decode()\n",
                "            is not None\n",
            ),
        ),
        "test_starting.py::test_p4_after_a_reboot_nothing_recorded_lives",
        "a journal from before a reboot is believed",
    ),
    Sabotage(
        "P5",
        "machines/stopping.py",
        (
            (
                "                if self.phase is StopPhase.STUCK:\n"
                "                    return self, ()\n"
                "                return self._kill(now), _KILL\n",
                "                return self, ()\n",
            ),
        ),
        "test_stopping.py::test_p5_who_ignores_the_signal_is_killed",
        "the ladder has no last rung",
    ),
    Sabotage(
        "P5",
        "machines/stopping.py",
        (
            (
                "    if frozen:\n        effects = (*effects, *_CONTINUE)\n",
                "",
            ),
        ),
        "test_stopping.py::test_p5_who_is_paused_stops_politely",
        "who is paused is not continued, and can't see the signal",
    ),
    Sabotage(
        "P6",
        "machines/ending.py",
        (
            (
                "        elif record.status is not _S.STOPPED:\n"
                "            self._rest(record)",
                "        elif record.status is _S.FAILED:\n"
                "            self._rest(record)",
            ),
        ),
        "test_stopping.py::test_p6_stop_works_in_every_state",
        "who waits or backs off is not stopped",
    ),
    Sabotage(
        "P7",
        "machines/supervision.py",
        (
            (
                "self._intend(record, wanted=False, by_hand=True)\n"
                "            self._stop(",
                "self._intend(record, wanted=True, by_hand=False)\n"
                "            self._stop(",
            ),
        ),
        "test_stopping.py::test_p7_intent_outlives_the_supervisor_and_the_keeper",
        "a stop leaves the intent as it was",
    ),
    Sabotage(
        "P7",
        "machines/starting.py",
        (
            (
                "        self._disarm(record, TimerKind.RESTART)\n"
                "        record.next_restart_at = None\n"
                "        record.waits_for = None\n",
                "        record.next_restart_at = None\n"
                "        record.waits_for = None\n",
            ),
            (
                "if self.closing or not record.wanted:",
                "if self.closing:",
            ),
        ),
        "test_stopping.py::test_p7_stop_during_backoff_is_final",
        "the timer of a restart outlives the stop",
    ),
    Sabotage(
        "P8",
        "machines/restart.py",
        (
            (
                "return RestartState(self.attempts + 1, recent), RestartAfter(delay)",
                "return RestartState(self.attempts, recent), RestartAfter(delay)",
            ),
        ),
        "test_restarts.py::test_p8_restarts_follow_the_schedule_and_end",
        "restarts are not counted",
    ),
    Sabotage(
        "P8",
        "machines/restart.py",
        (
            (
                "seconds = min(nominal * (1.0 + backoff.jitter * draw), _LONGEST)",
                "seconds = min(nominal * (1.0 + 0.0 * draw), _LONGEST)",
            ),
        ),
        "test_restarts.py::test_p8_jitter_stays_within_its_bounds",
        "there is no jitter",
    ),
    Sabotage(
        "P9",
        "machines/readiness.py",
        (
            (
                "                if self.immediate:",
                "                if True:",
            ),
        ),
        "test_readiness.py::test_p9_slow",
        "started is ready",
    ),
    Sabotage(
        "P9",
        "machines/readiness.py",
        (
            (
                "if self.deadline is not None and now >= self.deadline:",
                "if False:",
            ),
        ),
        "test_readiness.py::test_p9_never",
        "readiness has no deadline",
    ),
    Sabotage(
        "P9",
        "keeper.py",
        (
            (
                "if sender <= 0 or not self._keeper.tree.holds(slot, sender):",
                "if sender <= 0:",
            ),
        ),
        "test_readiness.py::test_p9_nobody_else_can_say_ready",
        "anybody can say READY=1",
    ),
    Sabotage(
        "P10",
        "keeper.py",
        (
            (
                'newline = data.rfind(b"\\n", position, position + room) if room > 0 else -1',
                "newline = position + room - 1 if room > 0 else -1",
            ),
        ),
        "test_logs.py::test_p10_a_million_lines_then_exit_1",
        "files are cut in the middle of a line",
    ),
    Sabotage(
        "P10",
        "keeper.py",
        (
            (
                '        self._rename(log, log.base, log.base + ".1")\n',
                "",
            ),
        ),
        "test_logs.py::test_p10_a_million_lines_then_exit_1",
        "rotation forgets a file",
    ),
    Sabotage(
        "P13",
        "control/charge.py",
        (
            (
                "    config = load_project(paths.file)\n    problems =",
                "    paths.accepted.unlink(missing_ok=True)\n"
                "    config = load_project(paths.file)\n    problems =",
            ),
        ),
        "test_bad_input.py::test_p13_bad_config_changes_nothing",
        "the old configuration is thrown away before the new one is read",
    ),
    Sabotage(
        "P15",
        "keeper.py",
        (
            (
                "in self.poller.poll(timeout, 1024)",
                "in self.poller.poll(1.0, 1024)",
            ),
        ),
        "test_idle.py::test_p15_idle_costs_nothing",
        "the keeper looks around once a second",
    ),
    Sabotage(
        "P16",
        "control/server.py",
        (
            (
                "tasks.start_soon(self._serve, stream)",
                "await self._serve(stream)",
            ),
        ),
        "test_control.py::test_p16_slow_and_half_closed_clients",
        "one client at a time",
    ),
    Sabotage(
        "P16",
        "control/server.py",
        (
            (
                "tasks.start_soon(self._serve, stream)",
                "await self._serve(stream)",
            ),
        ),
        "test_control.py::test_p16_a_stuck_daemon_blocks_nobody",
        "a stop that waits lets everybody wait",
    ),
    Sabotage(
        "P18",
        "control/server.py",
        (
            (
                "    return uid in (owner, 0)",
                "    return True",
            ),
        ),
        "test_socket.py::test_p18_another_user_is_refused_by_who_he_is",
        "nobody asks who connects to the control socket",
    ),
    Sabotage(
        "P18",
        "control/unix_socket.py",
        (
            (
                "os.fchmod(listener.fileno(), 0o600)",
                "os.fchmod(listener.fileno(), 0o666)",
            ),
            (
                "os.chmod(reachable, 0o600)",
                "os.chmod(reachable, 0o666)",
            ),
        ),
        "test_socket.py::test_p18_folders_and_files_are_private",
        "the socket is open to everybody who reaches it",
    ),
    Sabotage(
        "LOCK",
        "runner.py",
        (
            (
                "if warning := lock_memory(config.lock_memory):",
                "if warning := None:",
            ),
        ),
        "test_locked_memory.py::test_it_is_locked_as_declared",
        "the runner locks nothing",
    ),
    Sabotage(
        "LOCK",
        "config/launch.py",
        (
            (
                "capabilities = (CAP_IPC_LOCK,)",
                "capabilities = ()",
            ),
        ),
        "test_locked_memory.py::test_another_user_can_lock",
        "another user is handed no right",
    ),
)


def main(wanted: list[str]) -> int:
    """This runs the table, or the rows of some promises, and prints the record."""
    unnoticed = 0
    healthy: set[str] = set()
    for sabotage in TABLE:
        if wanted and sabotage.promise not in wanted:
            continue
        began = time.monotonic()
        verdict, detail = try_one(sabotage, healthy)
        unnoticed += verdict != "noticed"
        print(
            f"{verdict.upper():12} {sabotage.promise:4} {sabotage.story}\n"
            f"{'':17} {sabotage.file} -> {sabotage.test} "
            f"({time.monotonic() - began:.1f} s)\n{'':17} {detail}",
            flush=True,
        )
    print(f"{unnoticed} not noticed" if unnoticed else "every sabotage was noticed")
    return 1 if unnoticed else 0


def try_one(sabotage: Sabotage, healthy: set[str]) -> tuple[str, str]:
    """This is the verdict on one sabotage, and the reason.

    `healthy` collects the tests that have passed with a faithful copy.
    """
    with tempfile.TemporaryDirectory(prefix="duende-sabotage-") as folder:
        copied = Path(folder) / "duende" / "core"
        shutil.copytree(
            installed("duende.core"),
            copied,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        # Daemons of other users import nothing, but the tests' intruder may look.
        Path(folder).chmod(0o755)
        path = copied / sabotage.file
        text = path.read_text()
        for old, new in sabotage.edits:
            if text.count(old) != 1:
                return (
                    "not applied",
                    f"found {text.count(old)} times, not once: {old!r}",
                )
            text = text.replace(old, new)
        if sabotage.test not in healthy:
            code, last, _ = run_test(sabotage.test, folder)
            if code or "passed" not in last or "skipped" in last:
                return "not healthy", f"the test does not pass as it is: {last}"
            healthy.add(sabotage.test)
        path.write_text(text)
        compile(text, str(path), "exec")  # broken, but still a program
        code, last, reason = run_test(sabotage.test, folder)
        if code == 1 and reason:
            return "noticed", reason
        return "unnoticed", last


def run_test(test: str, folder: str) -> tuple[int, str, str]:
    """This runs a test with a copy, and gives its exit code, last line and reason."""
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", str(HERE / test)],
        cwd=HERE.parent,
        env=os.environ | {"PYTHONPATH": folder},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    last = (found.stdout.strip().splitlines() or [found.stderr.strip()])[-1]
    reasons = [line for line in found.stdout.splitlines() if line.startswith("E  ")]
    return found.returncode, last, " ".join(" ".join(reasons[:1]).split())[:150]


def installed(name: str) -> Path:
    """This is the folder of an installed package."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not installed here")
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
