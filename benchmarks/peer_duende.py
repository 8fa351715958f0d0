"""duende as a peer: `duende up` in the foreground, and `duende up -d`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from peers import Peer
from world import await_end, descendants, end_process, runs

__all__ = ("Duende", "DuendeBackground", "duende_program")


def duende_program() -> str:
    """This finds the `duende` command beside this interpreter, else in PATH.

    Raises:
        SystemExit: There is none.
    """
    beside = Path(sys.executable).with_name("duende")
    found = str(beside) if beside.exists() else shutil.which("duende")
    if found is None:
        raise SystemExit("the benchmarks need duende: pip install 'duende-core[cli]'")
    return found


class Duende(Peer):
    """This is `duende up`, whose process is the control plane."""

    name = "duende"
    project = "bench"

    def prepare(self) -> None:
        """This writes duende.toml: one daemon of many instances."""
        self.state = self.folder / "state" / "duende" / self.project
        self.child_env["XDG_STATE_HOME"] = str(self.folder / "state")
        self.child_env["XDG_RUNTIME_DIR"] = str(self.place.new_runtime_folder())
        inherited = json.dumps(
            sorted(k for k in self.child_env if k.startswith("BENCH"))
        )
        text = f'[supervisor]\nproject = "{self.project}"\n'
        if self.count:
            text += (
                f'[daemon.child]\ncommand = ["{self.place.child}"]\n'
                f"instances = {self.count}\ninherit_env = {inherited}\n"
                '[daemon.child.restart]\npolicy = "always"\n'
                'backoff = { initial = "0s", jitter = 0.0 }\n'
                '[daemon.child.log]\nmax_size = "8GiB"\n'
            )
        (self.folder / "duende.toml").write_text(text)
        self._program = duende_program()
        self._keeper = 0

    def command(self) -> list[str]:
        """This is `duende up`."""
        return [self._program, "up"]

    def pids(self) -> list[int]:
        """These are the control plane and the keeper."""
        found = descendants(self._roots(), without=self.place.child)
        return [pid for pid in found if not runs(pid, self.place.child)]

    def _roots(self) -> list[int]:
        process = [] if self._process is None else [self._process.pid]
        keeper = self._keeper_pid()
        return process + ([keeper] if keeper else [])

    def _keeper_pid(self) -> int:
        """This is the pid that the keeper has written into its lock."""
        if not self._keeper:
            try:
                text = (self.state / "lock").read_text()
            except OSError:
                return 0
            match = re.search(r"\d+", text)
            self._keeper = int(match[0]) if match else 0
        return self._keeper

    def before_stop(self) -> None:
        """This notes the keeper's pid: its record goes with it."""
        self._keeper_pid()

    def wait_gone(self, timeout: float) -> int:
        """This waits for both processes."""
        super().wait_gone(timeout)
        if self._keeper:
            await_end(self._keeper, timeout)
        return time.monotonic_ns()

    def close(self) -> None:
        """This ends what is left, the keeper included."""
        keeper = self._keeper_pid()
        super().close()
        if keeper and self._is_ours(keeper):
            end_process(keeper)

    def _is_ours(self, pid: int) -> bool:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return os.fsencode(str(self.folder)) in environ

    def log_files(self, number: int) -> list[Path]:
        """There is one file, as what is written stays below max_size."""
        name = "child" if self.count == 1 else f"child-{number}"
        return [self.state / "logs" / f"{name}.log"]

    def status_command(self) -> list[str]:
        """This is `duende ps`."""
        return [self._program, "ps"]


class DuendeBackground(Duende):
    """This is `duende up -d`, whose supervisor is the keeper's child."""

    name = "duende -d"

    def command(self) -> list[str]:
        """This is `duende up -d`; the process ends when all are ready."""
        return [self._program, "up", "-d"]

    def _record(self) -> dict[str, object]:
        try:
            found = json.loads((self.state / "supervisor.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _roots(self) -> list[int]:
        return [keeper] if (keeper := self._keeper_pid()) else []

    def settle(self) -> None:
        """This waits until the command `up -d` has returned."""
        assert self._process is not None
        self._process.wait(120)

    def ask_to_stop(self) -> None:
        """This is `duende down`."""
        self._down = subprocess.Popen(
            [self._program, "down"],
            cwd=self.folder,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_gone(self, timeout: float) -> int:
        """This waits for the keeper, and for `duende down`."""
        if self._keeper_pid():
            await_end(self._keeper, timeout)
        gone = time.monotonic_ns()
        self._down.wait(timeout)
        return gone

    def close(self) -> None:
        """This takes the project down, then ends what is left."""
        if self._keeper_pid() and not await_end(self._keeper, 0):
            self.settle()
            self.ask_to_stop()
            try:
                self._down.wait(30)
            except subprocess.TimeoutExpired:
                end_process(self._down.pid)
        super().close()
