"""Real processes: what a supervisor sees of a Python daemon from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DEADLINE = 20.0
"""Seconds until a test gives a process up; a loaded machine starts Python slowly."""

TICKER = """
from __future__ import annotations
import os
from attrs import frozen
from duende.core import Daemon, DaemonContext, ExitReason, HealthStatus

@frozen
class Settings:
    every: float = 1.0

class Ticker(Daemon):
    settings: Settings                                    # typed and checked

    async def init(self, config):
        print("init", self.name, config.name, self.settings.every, flush=True)
        left = [n for n in os.environ if n.startswith(("NOTIFY", "WATCHDOG"))]
        print("env", left + [n for n in os.environ if n == "DUENDE_RUNNER"])

    async def run(self, ctx: DaemonContext) -> ExitReason | None:
        ctx.logger.info("running")
        while not ctx.should_shutdown:
            await ctx.sleep(0.1)
        return ExitReason.GRACEFUL

    async def reload(self, config):
        print("reload", self.settings.every, flush=True)

    async def shutdown(self, timeout: float):
        print("shutdown", flush=True)

class TrioTicker(Ticker):
    backend = "trio"
"""


pytestmark = pytest.mark.real


class Supervisor:
    """This is a fake supervisor: a notify socket, and the processes it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(DEADLINE)
        self.heard: list[str] = []
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, target: str, **variables: str) -> subprocess.Popen[str]:
        return self.start_argv("-m", "duende.core.runner", target, **variables)

    def start_argv(self, *argv: str, **variables: str) -> subprocess.Popen[str]:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONUNBUFFERED": "1",
            "NOTIFY_SOCKET": str(self.path),
            **variables,
        }
        process = subprocess.Popen(
            [sys.executable, *argv],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def wait_for(self, line: str) -> str:
        """This reads datagrams until one has the line; it gives that datagram."""
        while True:
            text = self.socket.recv(4096).decode()
            self.heard.append(text)
            if any(part.startswith(line) for part in text.split("\n")):
                return text

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=DEADLINE)
        return process.returncode, out, err

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.socket.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor whose processes are gone when the test is over."""
    (tmp_path / "ticker.py").write_text(TICKER)
    made = Supervisor(tmp_path)
    yield made
    made.close()


def write(supervisor: Supervisor, body: str) -> None:
    """This writes the module `app`."""
    (supervisor.folder / "app.py").write_text(
        "import os, signal, sys, time\nimport anyio\n"
        "from duende.core import Daemon, ExitReason, main\n" + textwrap.dedent(body)
    )


@pytest.mark.parametrize("kind", ["Ticker", "TrioTicker"])
def test_the_sample_from_start_to_stop(supervisor: Supervisor, kind: str) -> None:
    """READY with MAINPID, reload by SIGHUP, STOPPING and exit 0 by SIGTERM."""
    given = json.dumps({"name": "tick", "settings": {"every": 3}, "stop_timeout": 5})
    process = supervisor.start(f"ticker:{kind}", DUENDE_RUNNER=given)
    assert f"MAINPID={process.pid}" in supervisor.wait_for("READY=1").split("\n")
    process.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in supervisor.wait_for("RELOADING=1")
    supervisor.wait_for("READY=1")
    process.send_signal(signal.SIGTERM)
    supervisor.wait_for("STOPPING=1")
    code, out, err = supervisor.end(process)
    assert code == 0
    assert out.splitlines() == [
        "init tick tick 3.0",
        "env []",
        "reload 3.0",
        "shutdown",
    ]
    assert "INFO tick: running" in err


def test_sigint_is_a_graceful_stop_too(supervisor: Supervisor) -> None:
    """SIGINT stops as SIGTERM does, without a KeyboardInterrupt."""
    process = supervisor.start("ticker.py:Ticker")
    supervisor.wait_for("READY=1")
    process.send_signal(signal.SIGINT)
    code, out, err = supervisor.end(process)
    assert (code, out.splitlines()[-1]) == (0, "shutdown")
    assert "Traceback" not in err


@pytest.mark.parametrize("body", ["await anyio.sleep_forever()", "time.sleep(60)"])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_kills_at_once(
    supervisor: Supervisor, first: signal.Signals, body: str
) -> None:
    """A second stop signal ends the process by it, even with a blocked loop."""
    write(
        supervisor,
        f"""
        class Deaf(Daemon):
            async def run(self, ctx):
                print("running", flush=True)
                {body}
        """,
    )
    process = supervisor.start("app:Deaf")
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(first)
    # The first has arrived when it is no longer pending for the process.
    wait_caught(process.pid, first)
    process.send_signal(signal.SIGINT)
    code, _, _ = supervisor.end(process)
    assert code == -signal.SIGINT


def wait_caught(pid: int, number: int) -> None:
    """This waits until a signal is no longer pending (SigPnd, ShdPnd in proc(5))."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        masks = [
            int(line.split()[1], 16)
            for line in status.splitlines()
            if line.startswith(("SigPnd", "ShdPnd"))
        ]
        if not any(mask & (1 << (number - 1)) for mask in masks):
            return
    pytest.fail("the signal stays pending")


def test_an_error_is_exit_1_with_its_traceback(supervisor: Supervisor) -> None:
    """The traceback begins in the daemon's own code; shutdown was called."""
    write(
        supervisor,
        """
        class Broken(Daemon):
            async def run(self, ctx):
                raise ValueError("boom")
            async def shutdown(self, timeout):
                print("shutdown")
        """,
    )
    code, out, err = supervisor.end(supervisor.start("app:Broken"))
    assert (code, out) == (1, "shutdown\n")
    assert "ValueError: boom" in err
    assert "app.py" in err
    assert "_hosting.py" not in err


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return None", 0),
        ("return ExitReason.ERROR", 1),
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), 15); await ctx.wait_shutdown()", 0),
        (
            "signal.raise_signal(15); await ctx.sleep(60); return ExitReason.SIGNAL",
            -15,
        ),
    ],
)
def test_exit_codes(supervisor: Supervisor, body: str, code: int) -> None:
    """An async function's end is the process's: 0, 1, its own, or by the signal."""
    write(supervisor, f"async def work(ctx):\n    {body}\n")
    assert supervisor.end(supervisor.start("app:work"))[0] == code


def test_main_with_settings_and_a_name(supervisor: Supervisor) -> None:
    """main(Class, settings=…) works by hand, without any supervisor's variables."""
    write(
        supervisor,
        """
        import attrs

        @attrs.frozen
        class Settings:
            port: int

        class Own(Daemon):
            settings: Settings
            async def run(self, ctx):
                print(self.name, self.settings.port, ctx.settings.port,
                      ctx.config.stop.timeout)

        if __name__ == "__main__":
            main(Own, settings={"port": 80}, backend="trio")
        """,
    )
    process = supervisor.start_argv("app.py", NOTIFY_SOCKET="")
    code, out, err = supervisor.end(process)
    assert (code, out, err) == (0, "own 80 80 10.0\n", "")


@pytest.mark.parametrize(
    ("target", "variables", "text"),
    [
        ("ticker:Tickr", {}, "did you mean 'Ticker'?"),
        ("tickr:Ticker", {}, "did you mean 'ticker'?"),
        ("ticker:Ticker", {"DUENDE_RUNNER": "{"}, "DUENDE_RUNNER can't be read"),
        (
            "ticker:Ticker",
            {"DUENDE_RUNNER": '{"name": "t", "settings": {"evry": 1}}'},
            "daemon.t.settings.evry: unknown key; did you mean 'every'?",
        ),
        (
            "ticker:Ticker",
            {"DUENDE_RUNNER": '{"stop_timeout": 0}'},
            "DUENDE_RUNNER can't be read",
        ),
    ],
)
def test_mistakes_are_exit_78_and_one_message(
    supervisor: Supervisor, target: str, variables: dict[str, str], text: str
) -> None:
    """What a person got wrong is told without a traceback, with EX_CONFIG."""
    code, out, err = supervisor.end(supervisor.start(target, **variables))
    assert (code, out) == (78, "")
    assert text in err
    assert "Traceback" not in err


def test_usage(supervisor: Supervisor) -> None:
    """Without a target there is a usage line and exit code 2."""
    process = supervisor.start_argv("-m", "duende.core.runner")
    code, _, err = supervisor.end(process)
    assert code == 2
    assert err.startswith("usage: ")


def test_watchdog(supervisor: Supervisor) -> None:
    """WATCHDOG=1 comes from the event loop, at half the period."""
    process = supervisor.start("ticker:Ticker", WATCHDOG_USEC="100000")
    supervisor.wait_for("READY=1")
    for _ in range(3):
        supervisor.wait_for("WATCHDOG=1")
    process.send_signal(signal.SIGTERM)
    assert supervisor.end(process)[0] == 0


def test_user_signals(supervisor: Supervisor) -> None:
    """ctx.signals catches the process's own signals, and goes on after the block."""
    write(
        supervisor,
        """
        async def work(ctx):
            with ctx.signals(signal.SIGUSR1) as stream:
                ctx.notify_status("listening")
                async for number in stream:
                    print(number.name, flush=True)
                    break
            os.kill(os.getpid(), signal.SIGUSR1)
            await anyio.sleep(0)
            print("alive")
        """,
    )
    process = supervisor.start("app:work")
    supervisor.wait_for("STATUS=listening")
    process.send_signal(signal.SIGUSR1)
    code, out, _ = supervisor.end(process)
    assert (code, out) == (0, "SIGUSR1\nalive\n")


def test_a_bad_reload_is_survived(supervisor: Supervisor, tmp_path: Path) -> None:
    """Settings are read again from the file; bad ones are reported, not taken."""
    file = tmp_path / "duende.toml"
    given = json.dumps(
        {"name": "tick", "settings": {"every": 1}, "file": str(file), "daemon": "t"}
    )
    process = supervisor.start("ticker:Ticker", DUENDE_RUNNER=given)
    supervisor.wait_for("READY=1")
    for text, answer in (
        ("[daemon.t.settings]\nevery = 7\n", "READY=1"),
        ("[daemon.t.settings]\nevry = 7\n", "STATUS=reload failed: ConfigError"),
        ("[daemon", "STATUS=reload failed: ConfigError"),
        ("[daemon.u]\n", "STATUS=reload failed: ConfigError"),
        ("[defaults.settings]\nevery = 8\n[daemon.t]\n", "READY=1"),
    ):
        file.write_text(text)
        process.send_signal(signal.SIGHUP)
        supervisor.wait_for(answer)
    process.send_signal(signal.SIGTERM)
    code, out, _ = supervisor.end(process)
    assert code == 0
    reloads = [line for line in out.splitlines() if line.startswith("reload")]
    assert reloads == ["reload 7.0", "reload 8.0"]


def test_a_blocked_daemon_does_not_hang_for_ever(supervisor: Supervisor) -> None:
    """Past its stop timeout the process ends by itself and shows where it hangs."""
    write(
        supervisor,
        """
        class Blocked(Daemon):
            async def run(self, ctx):
                await ctx.wait_shutdown()
                time.sleep(60)  # here
        """,
    )
    given = json.dumps({"stop_timeout": 0.2})
    process = supervisor.start("app:Blocked", DUENDE_RUNNER=given)
    supervisor.wait_for("READY=1")
    process.send_signal(signal.SIGTERM)
    code, _, err = supervisor.end(process)
    assert code == 1
    assert "app.py" in err
    assert "in run" in err


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            "import logging; logging.basicConfig(format='mine %(message)s', level=20)",
            "",
        ),
        ("", "DEBUG"),
    ],
)
def test_logging_is_left_alone_where_it_is_configured(
    supervisor: Supervisor, module: str, expected: str
) -> None:
    """The runner's own handler comes only when nothing else did; the level is set."""
    write(
        supervisor,
        f"{module}\nasync def work(ctx):\n    ctx.logger.debug('low')\n"
        "    ctx.logger.warning('hello')\n",
    )
    process = supervisor.start("app:work", DUENDE_LOG_LEVEL=expected)
    code, _, err = supervisor.end(process)
    assert code == 0
    assert ("mine hello" in err) == bool(module)
    assert ("DEBUG work: low" in err) == bool(expected)


def test_little_is_imported(supervisor: Supervisor) -> None:
    """A daemon without settings loads neither cattrs, nor click, nor h11."""
    write(
        supervisor,
        """
        async def work():
            heavy = {"cattrs", "click", "h11", "psutil", "duende.core.manager"}
            print(sorted(heavy & set(sys.modules)))
        """,
    )
    code, out, _ = supervisor.end(supervisor.start("app:work"))
    assert (code, out) == (0, "[]\n")


@pytest.mark.skipif(sys.platform != "linux", reason="mlockall is Linux's")
def test_required_lock_refuses_to_start(supervisor: Supervisor) -> None:
    """Where memory can't be locked, a daemon that requires it does not start."""
    write(
        supervisor,
        """
        import resource
        import duende.mlock._cli
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)

        async def work():
            print("must not run")
        """,
    )
    given = json.dumps({"lock_memory": "required"})
    code, out, err = supervisor.end(supervisor.start("app:work", DUENDE_RUNNER=given))
    assert (code, out) == (78, "")
    assert "lock_memory is required" in err


def test_a_full_supervisor_still_hears_it_all(supervisor: Supervisor) -> None:
    """What the socket had no room for is sent again, in order."""
    write(
        supervisor,
        """
        async def work(ctx):
            for number in range(40):
                ctx.notify_status(str(number))
            print("said", flush=True)
            await ctx.wait_shutdown()
        """,
    )
    size = 0
    supervisor.socket.setblocking(False)
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.setblocking(False)
    try:
        while True:
            filler.sendto(b"FILL=1", str(supervisor.path))
            size += 1
    except BlockingIOError:
        pass
    filler.close()
    supervisor.socket.settimeout(DEADLINE)
    process = supervisor.start("app:work")
    assert process.stdout is not None
    assert process.stdout.readline() == "said\n"
    supervisor.wait_for("STATUS=39")
    process.send_signal(signal.SIGTERM)
    assert supervisor.end(process)[0] == 0
    said = [text for text in supervisor.heard if not text.startswith("FILL")]
    assert said[0].startswith("READY=1")
    assert said[1:] == [f"STATUS={number}" for number in range(40)]
