"""A project under test: its file, its folders, and the installed `duende` command.

Nothing of duende is imported: what is tested is what a user installed.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs

from .world import kill_exactly, lives, marked, sockets_below

T = TypeVar("T")
Row = dict[str, Any]

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 20.0
"""Seconds after which what was waited for counts as never coming."""


@attrs.frozen(kw_only=True)
class Result:
    """This is what a command answered."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    def json(self) -> Any:
        """This reads what it printed."""
        return json.loads(self.out)


def child(*words: object) -> str:
    """This is a `command` of a misbehaving child, as TOML."""
    return json.dumps(
        [sys.executable, "-I", "-S", str(CHILD), *(str(word) for word in words)]
    )


def until(condition: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """This looks again and again until it finds something, or fails."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s still not: {what}")
        time.sleep(0.01)


def free_port() -> int:
    """This finds a TCP port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Project:
    """This is a folder with a duende.toml, and private state and runtime folders."""

    def __init__(self) -> None:
        self.mark = f"e2e-{secrets.token_hex(8)}"
        # Not pytest's tmp_path: other users have to get in (postgres, nobody).
        self.root = Path(tempfile.mkdtemp(prefix="duende-e2e-", dir="/tmp"))
        self.root.chmod(0o755)
        self.file = self.root / "duende.toml"
        self.command = str(Path(sys.executable).with_name("duende"))
        self.env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("DUENDE_", "XDG_", "NOTIFY_", "PYTEST_"))
        }
        self.env |= {
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "E2E_MARK": self.mark,
            "NO_COLOR": "1",
        }
        (self.root / "run").mkdir(mode=0o700)
        # Daemons of other users have to reach their notify sockets.
        (self.root / "run").chmod(0o711)
        self._started: list[subprocess.Popen[str]] = []

    # -- the file and the command -----------------------------------------------------

    def write(self, text: str) -> None:
        """This writes duende.toml; every daemon gets the mark.

        And the PYTHONPATH of the tests, if any: what is put in front of the installed
        package is then also what Python daemons run.
        """
        env = {"E2E_MARK": self.mark}
        if "PYTHONPATH" in self.env:
            env["PYTHONPATH"] = self.env["PYTHONPATH"]
        pairs = ", ".join(f"{name} = {json.dumps(env[name])}" for name in env)
        defaults = f"[defaults]\nenv = {{ {pairs} }}\n"
        self.file.write_text(defaults + text)

    def run(
        self, *words: str, timeout: float = 60.0, env: dict[str, str] | None = None
    ) -> Result:
        """This runs `duende …` in the project's folder and waits for its end."""
        began = time.monotonic()
        process = self.start(*words, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(
                f"duende {' '.join(words)} took longer than {timeout:g} s\n{out}{err}"
            ) from None
        finally:
            self._started.remove(process)
        return Result(
            argv=words,
            code=process.returncode,
            out=out,
            err=err,
            seconds=time.monotonic() - began,
        )

    def start(
        self, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """This starts `duende …` and does not wait."""
        process = subprocess.Popen(
            [self.command, *words],
            cwd=self.root,
            env=self.env | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # What the runner of the tests has closed or ignored is no concern of ours.
            restore_signals=True,
        )
        self._started.append(process)
        return process

    def ok(self, *words: str, timeout: float = 60.0) -> Result:
        """This runs `duende …`, which has to succeed."""
        result = self.run(*words, timeout=timeout)
        assert result.code == 0, f"duende {' '.join(words)}: {result}"
        return result

    def up(self, *names: str) -> Result:
        """This is `duende up -d`, which has to succeed."""
        return self.ok("up", "-d", *names)

    @contextmanager
    def foreground(self) -> Iterator[subprocess.Popen[str]]:
        """This runs `duende up` beside the test, with its output in files."""
        with (
            open(self.root / "up.out", "w") as out,
            open(self.root / "up.err", "w") as err,
        ):
            process = subprocess.Popen(
                [self.command, "up"],
                cwd=self.root,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    # -- what it says -----------------------------------------------------------------

    @property
    def state(self) -> Path:
        """The project's state folder."""
        [found] = (self.root / "state" / "duende").iterdir()
        return found

    @property
    def runtime(self) -> Path:
        """The project's runtime folder."""
        [found] = (self.root / "run" / "duende").iterdir()
        return found

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.runtime / "control" / "duende.sock"

    def get(self, path: str, timeout: float = 10.0) -> Any:
        """This asks the control socket, as curl --unix-socket does."""
        connection = _UnixConnection(str(self.socket), timeout)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def overview(self) -> Row:
        """This is the object of `duende ps -o json`."""
        found: Row = self.get("/v1/daemons")
        return found

    def rows(self) -> dict[str, Row]:
        """These are the rows of `duende ps`, by name."""
        return {row["name"]: row for row in self.overview()["daemons"]}

    def row(self, name: str) -> Row:
        """This is one row; `{}` while nobody answers."""
        try:
            return self.rows().get(name, {})
        except (OSError, ValueError, http.client.HTTPException):
            return {}  # a folder that isn't there yet is a ValueError of unpacking

    def pid(self, name: str) -> int:
        """This is a daemon's pid."""
        found = self.row(name)["pid"]
        assert isinstance(found, int), self.row(name)
        return found

    def keeper_pid(self) -> int:
        """This is who holds the project's lock."""
        return int((self.state / "lock").read_text().split()[0])

    def control_pid(self) -> int:
        """This is the supervisor's pid."""
        return int(self.overview()["supervisor"]["pid"])

    def events(self, daemon: str | None = None, kind: str | None = None) -> list[Row]:
        """These are the events so far."""
        found = [
            json.loads(text)
            for text in self.ok("events", "-o", "json").out.splitlines()
        ]
        return [
            event
            for event in found
            if daemon in (None, event["daemon"]) and kind in (None, event["type"])
        ]

    def log(self, name: str) -> list[str]:
        """This is what a daemon has written, by its file."""
        path = self.state / "logs" / f"{name}.log"
        return path.read_text().splitlines() if path.exists() else []

    def is_in(self, name: str, state: str, seconds: float = PATIENCE) -> Row:
        """This waits until a daemon is in a state."""

        def look() -> Row | None:
            row = self.row(name)
            return row if row.get("state") == state else None

        try:
            return until(look, f"{name} is {state}", seconds)
        except AssertionError as err:
            raise AssertionError(f"{err}; it is {self.row(name)}") from None

    def comes_back(self, name: str, old_pid: int, seconds: float = PATIENCE) -> Row:
        """This waits until a daemon is ready with another pid."""

        def look() -> Row | None:
            row = self.row(name)
            return row if row.get("ready") and row["pid"] != old_pid else None

        try:
            return until(look, f"{name} is ready again", seconds)
        except AssertionError as err:
            raise AssertionError(f"{err}; it is {self.row(name)}") from None

    # -- what is done to it -----------------------------------------------------------

    def kill_control_plane(self) -> int:
        """This kills the supervisor with SIGKILL and returns its pid."""
        pid = self.control_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not lives(pid), "the supervisor is dead")
        return pid

    def kill_keeper(self) -> int:
        """This kills the keeper with SIGKILL and returns its pid."""
        pid = self.keeper_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not lives(pid), "the keeper is dead")
        return pid

    def answers_again(self, old_pid: int) -> int:
        """This waits for a new supervisor and returns its pid."""

        def look() -> int | None:
            try:
                pid = self.control_pid()
            except (OSError, ValueError, TypeError, http.client.HTTPException):
                return None
            return pid if pid != old_pid else None

        return until(look, "a new supervisor answers")

    # -- the end ----------------------------------------------------------------------

    def finish(self) -> None:
        """This ends everything, and fails if anything of it is left."""
        problems = []
        self.end_commands()
        if marked(self.mark, self.root):
            down = self.run("down")
            if down.code not in (0, 69):
                problems.append(f"down: {down}")
        left = self.leftovers()
        if left:
            problems.append(f"processes are left: {left}")
        sockets = sockets_below(self.root)
        if sockets:
            problems.append(f"sockets are left: {sockets}")
        self.kill_all()
        if problems:
            problems.append(self.diagnosis())
        assert not problems, "\n".join(problems)

    def end_commands(self) -> None:
        """This ends what the test has started and not waited for."""
        for process in self._started:
            process.kill()
            process.communicate()
        self._started.clear()

    def leftovers(self) -> list[Any]:
        """This waits a moment for what is ending, and lists what is not."""
        deadline = time.monotonic() + 3.0
        while (found := marked(self.mark, self.root)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def kill_all(self) -> None:
        """This makes sure that the next test finds a clean machine."""
        for _ in range(20):
            found = marked(self.mark, self.root)
            if not found:
                return
            for process in sorted(found, key=lambda each: "keeper" not in each.command):
                kill_exactly(process)
            time.sleep(0.05)

    def diagnosis(self) -> str:
        """This collects what helps to understand a failure."""
        parts = [f"--- {self.root}"]
        for name in ("keeper.log", "supervisor.log", "events.jsonl"):
            for path in self.root.glob(f"state/duende/*/{name}"):
                text = path.read_text(errors="replace")[-4000:]
                parts.append(f"--- {name}\n{text}")
        return "\n".join(parts)

    def remove(self) -> None:
        """This deletes the folder."""
        shutil.rmtree(self.root, ignore_errors=True)
