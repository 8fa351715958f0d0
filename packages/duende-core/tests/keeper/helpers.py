"""What the keeper's tests share: a project with a real keeper, and the world as /proc shows it."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duende.core.errors import DaemonError
from duende.core.keeper_client import KeeperConnection, Snapshot, start_keeper

MARKER = "DUENDE_KEEPER_TEST"
DEADLINE = 20.0
PYTHON = [sys.executable, "-I", "-S", "-c"]


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """This waits for something that has no event, with a deadline."""
    until = time.monotonic() + DEADLINE
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < until, f"{what} did not happen"
        time.sleep(0.005)


def processes_with(text: str) -> list[int]:
    """This lists the living processes whose environment holds a text."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environ = Path(f"/proc/{entry}/environ").read_bytes()
            state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if text.encode() in environ and state[0] not in "ZX":
            found.append(int(entry))
    return found


def zombies_of(pid: int) -> list[int]:
    """This lists the zombies among a process's children."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        for child in children:
            status = Path(f"/proc/{child}/stat").read_text()
            if status.rpartition(")")[2].split()[0] == "Z":
                found.append(int(child))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process lives, a zombie not counted."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


class Project:
    """This is a state and a runtime folder, and the keeper that is in them."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.runtime = folder / "run"
        self.mark = uuid.uuid4().hex
        self.pid = 0
        self.connection: KeeperConnection
        self.snapshot: Snapshot
        self.events: list[dict[str, Any]] = []
        self._connections: list[KeeperConnection] = []

    def start(self, **options: Any) -> None:
        """This starts a keeper and attaches to it."""
        self.pid = start_keeper(self.state, self.runtime, **options)
        self.attach()

    def attach(self) -> None:
        """This makes a new connection the control plane."""
        self.connection = self.connect()
        self.snapshot = self.connection.attach()

    def connect(self) -> KeeperConnection:
        """This makes a connection that is closed at the end of the test."""
        connection = KeeperConnection(self.state, DEADLINE)
        self._connections.append(connection)
        return connection

    def spec(self, name: str, argv: list[str], **fields: Any) -> dict[str, Any]:
        """This is a `spawn` request with harmless defaults."""
        run = fields.pop("run", uuid.uuid4().hex)
        env = {"PATH": os.environ["PATH"], MARKER: self.mark, "DUENDE_RUN_ID": run}
        env.update(fields.pop("env", {}))
        log = {
            "path": str(self.state / "logs" / f"{name}.log"),
            "max_size": 10_000_000,
            "keep": 5,
            "compress": False,
            "total_max": 1 << 30,
        }
        changes = fields.pop("log", {})
        request = {
            "op": "spawn",
            "name": name,
            "run": run,
            "path": argv[0],
            "argv": argv,
            "env": env,
            "cwd": "/",
            "umask": None,
            "uid": None,
            "gid": None,
            "groups": None,
            "nice": None,
            "limits": {},
            "watchdog": None,
            "log": None if changes is None else {**log, **changes},
            "blob": None,
            "stop_timeout": 5.0,
        }
        request.update(fields)
        return request

    def spawn(self, name: str, argv: list[str], **fields: Any) -> dict[str, Any]:
        """This starts a daemon and waits for its `spawned` event."""
        request = self.spec(name, argv, **fields)
        self.connection.request(**request)
        return self.wait("spawned", name)

    def shell(self, name: str, script: str, **fields: Any) -> dict[str, Any]:
        """This starts a shell script as a daemon."""
        return self.spawn(name, ["/bin/sh", "-c", script], **fields)

    def python(self, name: str, script: str, **fields: Any) -> dict[str, Any]:
        """This starts a Python script as a daemon."""
        return self.spawn(name, [*PYTHON, script], **fields)

    def wait(self, kind: str, name: str | None = None, **match: Any) -> dict[str, Any]:
        """This waits for an event; those before it stay for later waits."""
        until = time.monotonic() + DEADLINE
        while True:
            for event in self.events:
                if (
                    event.get("ev") == kind
                    and (name is None or event.get("name") == name)
                    and all(event.get(key) == value for key, value in match.items())
                ):
                    self.events.remove(event)
                    return event
                assert kind != "spawned" or event.get("ev") != "spawn-failed", event
            assert time.monotonic() < until, f"no {kind} {name}: {self.events}"
            self.events += self.connection.receive_lines()

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """This sends a request on the attached connection."""
        return self.connection.request(op, **fields)

    def log_text(self, name: str) -> str:
        """This is the current log file of a daemon, all that was written."""
        self.request("flush", names=None)
        path = self.state / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def kill_keeper(self) -> None:
        """This is kill -9 of the keeper, waited for."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = 0

    def close(self) -> None:
        """This ends everything the test started, whatever state it is in."""
        if self.pid:
            try:
                with KeeperConnection(self.state, 5.0) as connection:
                    for slot in connection.attach().slots:
                        connection.request(
                            "signal", name=slot["name"], sig=9, scope="tree"
                        )
            except DaemonError:
                pass
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ChildProcessError, ProcessLookupError):
                pass
        for pid in processes_with(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for connection in self._connections:
            connection.close()

    def connect_and_peek(self) -> dict[str, dict[str, Any]]:
        """This asks for the slots on a connection of its own."""
        with KeeperConnection(self.state, DEADLINE) as connection:
            return {slot["name"]: slot for slot in connection.peek().slots}
