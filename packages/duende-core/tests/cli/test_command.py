"""The `duende` command as a process, against a served fake supervisor or none."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ..control.fakes import LogOnDisk, Served, event, events_file, served, until

pytestmark = pytest.mark.real


def environment(folder: Path, **more: str) -> dict[str, str]:
    """This is an environment in which nothing of the machine's own projects shows."""
    kept = ("PATH", "PYTHONPATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
    return {
        **{key: os.environ[key] for key in kept if key in os.environ},
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        **more,
    }


def duende(
    folder: Path, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """This runs the command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "duende.core", *arguments],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """This is what a script sees."""
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The loop of the served fake."""
    name: str = request.param
    return name


@pytest.fixture
def server(tmp_path: Path, backend: str) -> Iterator[Served]:
    """A served fake supervisor with three daemons."""
    with served(tmp_path, backend) as found:
        yield found


def ask(
    server: Served, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """This runs the command against the served fake."""
    return duende(server.api.state, "--socket", server.socket, *arguments, **more)


class TestReading:
    """ps, status and what they have in common."""

    def test_ps(self, server: Served) -> None:
        """ps is one line a daemon, with its state, on stdout alone."""
        code, out, err = outcome(ask(server, "ps"))
        assert (0, "") == (code, err)
        lines = out.splitlines()
        assert ["NAME", "db", "web-0", "web-1"] == [line.split()[0] for line in lines]
        assert ["db", "running", "yes", "4242", "1.5s", "0", "0.5", "3.3M"] == lines[
            1
        ].split()

    def test_ps_json_is_the_overview(self, server: Served) -> None:
        """ps -o json prints what the supervisor says, key by key."""
        assert server.api.overview() == json.loads(
            ask(server, "ps", "-o", "json").stdout
        )

    @pytest.mark.parametrize(
        "flags",
        [
            ("-o", "json", "ps"),
            ("ps", "--output=json"),
            ("ps", "-q", "-o", "json", "-v"),
        ],
    )
    def test_common_flags_before_and_after(
        self, server: Served, flags: Sequence[str]
    ) -> None:
        """Common flags may stand on both sides of the verb."""
        assert 3 == len(json.loads(ask(server, *flags).stdout)["daemons"])

    def test_the_socket_by_environment(self, server: Served) -> None:
        """DUENDE_SOCKET says where the supervisor is."""
        done = duende(server.api.state, "ps", DUENDE_SOCKET=server.socket)
        assert 0 == done.returncode

    def test_ps_of_some(self, server: Served) -> None:
        """Names, base names and globs choose; an unknown one is 4."""
        assert 3 == len(ask(server, "ps", "web").stdout.splitlines())
        assert 2 == len(ask(server, "ps", "*b").stdout.splitlines())
        code, out, err = outcome(ask(server, "ps", "nobody"))
        assert (4, "") == (code, out)
        assert "no daemon 'nobody'" in err

    @pytest.mark.parametrize(
        ("state", "ready", "code"),
        [
            ("running", True, 0),
            ("running", False, 3),
            ("stopped", False, 3),
            ("failed", False, 3),
        ],
    )
    def test_status_reflects_the_state(
        self, server: Served, state: str, ready: bool, code: int
    ) -> None:
        """status NAME shows one in detail, and exits with 3 when it isn't up."""
        server.api.rows["db"].update(state=state, ready=ready)
        done = ask(server, "status", "db")
        assert code == done.returncode
        assert done.stdout.startswith(f"db: {state}")
        assert "sleep 5" in done.stdout
        assert 0 == ask(server, "status").returncode

    def test_what_a_daemon_says_can_not_forge_a_row(self, server: Served) -> None:
        """Newlines, escapes and direction marks in a status text are spelt out."""
        server.api.rows["db"]["status_text"] = "x\nforged  running \x1b[2J \u202e"
        out = ask(server, "ps", "db").stdout
        assert 2 == len(out.splitlines())
        assert r"x\nforged  running \x1b[2J \u202e" in out

    def test_a_closed_pipe_is_no_error(self, server: Served) -> None:
        """`ps | head -1` says nothing on stderr."""
        for number in range(3000):
            server.api.rows[f"d{number}"] = {
                **server.api.rows["db"],
                "name": f"d{number}",
            }
        with subprocess.Popen(
            [sys.executable, "-m", "duende.core", "--socket", server.socket, "ps"],
            env=environment(server.api.state),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(b"NAME")
            process.stdout.close()
            assert b"" == process.stderr.read()

    def test_the_fast_path_imports_little(self, server: Served) -> None:
        """ps imports neither click nor anyio, attrs, cattrs, h11 or rich."""
        code = (
            "import sys; from duende.core.cli import run; "
            f"code = run(['--socket', {server.socket!r}, 'ps', '-q']); "
            "heavy = {'click', 'anyio', 'attr', 'attrs', 'cattrs', 'h11', 'rich', 'asyncio'};"
            "sys.exit(','.join(heavy & set(sys.modules)) or code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(server.api.state),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (0, "") == (done.returncode, done.stderr)


class TestActing:
    """The verbs that change something."""

    @pytest.mark.parametrize(
        "verb", ["start", "stop", "restart", "reload", "pause", "resume"]
    )
    def test_command(self, server: Served, verb: str) -> None:
        """Each verb is passed on with names, and says what it did on stderr."""
        code, out, err = outcome(ask(server, verb, "web"))
        assert (0, "") == (code, out)
        assert 2 == len(err.splitlines())
        assert (verb, ("web-0", "web-1"), True, None) in server.api.calls

    def test_all_no_wait_and_timeout(self, server: Served) -> None:
        """--all, --no-wait and --timeout are passed on."""
        ask(server, "stop", "--all", "--no-wait", "--timeout", "2m")
        assert ("stop", ("db", "web-0", "web-1"), False, 120.0) in server.api.calls

    @pytest.mark.parametrize("code", [1, 3, 77, 124])
    def test_exit_code_of_a_bad_outcome(self, server: Served, code: int) -> None:
        """What a daemon would not do decides the exit code."""
        server.api.outcome_code = code
        done = ask(server, "restart", "db")
        assert (code, "duende: db: it would not\n") == (done.returncode, done.stderr)

    def test_json(self, server: Served) -> None:
        """-o json lists the outcomes."""
        out = ask(server, "start", "db", "-o", "json").stdout
        assert [
            {"name": "db", "ok": True, "state": "running", "message": "", "code": 0}
        ] == (json.loads(out)["outcomes"])

    def test_nobody(self, server: Served) -> None:
        """An unknown name is 4, and nothing is done to the others."""
        assert 4 == ask(server, "stop", "db", "nobody").returncode
        assert [] == [call for call in server.api.calls if call[0] == "stop"]

    @pytest.mark.parametrize(
        "line",
        [("start",), ("start", "--all", "db"), ("signal", "TERM"), ("wait", "db")],
    )
    def test_usage(self, server: Served, line: Sequence[str]) -> None:
        """Without a name, or with too much, the exit code is 2."""
        assert 2 == ask(server, *line).returncode

    def test_signal(self, server: Served) -> None:
        """signal takes a name or a number, and refuses what is none with 2."""
        assert 0 == ask(server, "signal", "usr1", "db").returncode
        assert ("signal", int(signal.SIGUSR1), ("db",)) in server.api.calls
        assert 2 == ask(server, "signal", "SIGNONE", "db").returncode

    def test_wait(self, server: Served) -> None:
        """wait passes state and timeout on."""
        assert (
            0
            == ask(server, "wait", "--for", "ready", "--timeout", "9s", "db").returncode
        )
        verb, names, state, timeout = server.api.calls[-1]
        assert ("wait", ("db",), "ready") == (verb, names, state)
        assert 8 < timeout <= 9

    def test_interrupted(self, server: Served) -> None:
        """Ctrl-C ends a wait quietly, with 130."""
        server.api.hang = True
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "duende.core",
                "--socket",
                server.socket,
                "wait",
                "--for",
                "ready",
                "db",
            ],
            env=environment(server.api.state),
            stderr=subprocess.PIPE,
        ) as process:
            until(server.api.hanging.is_set)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert b"" == process.stderr.read()
        assert 130 == process.returncode


class TestLogsAndEvents:
    """logs and events."""

    def test_logs_are_merged_with_names(self, server: Served, tmp_path: Path) -> None:
        """Lines of several daemons come by time, each with its name."""
        LogOnDisk(tmp_path, "db").write(b"one\nthree\n", 1)
        web = LogOnDisk(tmp_path, "web-0")
        web.write(b"tw\xff", 2)
        assert (
            "db    | one\ndb    | three\n" == ask(server, "logs", "db", "web-1").stdout
        )
        done = subprocess.run(
            [sys.executable, "-m", "duende.core", "--socket", server.socket, "logs"],
            env=environment(tmp_path),
            capture_output=True,
            check=True,
            timeout=60,
        )
        assert b"db    | one\ndb    | three\nweb-0 | tw\xff\n" == done.stdout

    def test_logs_of_one_are_bare(self, server: Served, tmp_path: Path) -> None:
        """The log of one daemon is what it wrote; -n counts from the end."""
        LogOnDisk(tmp_path, "db").write(b"one\ntwo\nthree\n", 1)
        assert "one\ntwo\nthree\n" == ask(server, "logs", "db").stdout
        assert "two\nthree\n" == ask(server, "logs", "-n", "2", "db").stdout
        assert "" == ask(server, "logs", "-n", "0", "db").stdout
        assert "" == ask(server, "logs", "--since", "1h", "db").stdout

    def test_logs_json(self, server: Served, tmp_path: Path) -> None:
        """-o json is an object a line."""
        LogOnDisk(tmp_path, "db").write(b"a \xff\x1b\n", 1_500_000_000)
        assert {
            "at": "1970-01-01T00:00:01.500000Z",
            "daemon": "db",
            "line": "a \ufffd\x1b",
        } == json.loads(ask(server, "logs", "-o", "json").stdout)

    def test_logs_follow(self, server: Served, tmp_path: Path) -> None:
        """-f goes on across a rotation, and ends with the supervisor."""
        log = LogOnDisk(tmp_path, "db")
        log.write(b"old\n", 1)
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "duende.core",
                "--socket",
                server.socket,
                "logs",
                "-f",
                "db",
            ],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert "old\n" == process.stdout.readline()
            log.write(b"before\n", 2)
            log.rotate()
            log.write(b"after\n", 3)
            until(lambda: server.api.followers)
            server.call(server.api.followers[0].send_nowait, "db")
            assert "before\n" == process.stdout.readline()
            assert "after\n" == process.stdout.readline()
            process.send_signal(signal.SIGINT)
        assert 130 == process.returncode

    def test_logs_of_nobody(self, server: Served) -> None:
        """An unknown name is 4."""
        assert 4 == ask(server, "logs", "nobody").returncode

    def test_a_terminal_is_safe(self, server: Served, tmp_path: Path) -> None:
        """On a terminal escape sequences are shown, not obeyed."""
        LogOnDisk(tmp_path, "db").write(b"\x1b[2Jgone\t\x07\n", 1)
        main, side = pty.openpty()
        try:
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "duende.core",
                    "--socket",
                    server.socket,
                    "--no-color",
                    "logs",
                    "db",
                ],
                env=environment(tmp_path),
                stdout=side,
                check=True,
                timeout=60,
            )
            assert b"\\x1b[2Jgone\t\\x07\r\n" == os.read(main, 1000)
        finally:
            os.close(main)
            os.close(side)

    def test_events(self, server: Served, tmp_path: Path) -> None:
        """events words what happened; -o json is the recorded object."""
        events_file(tmp_path, event(1), event(2, "because"))
        lines = ask(server, "events").stdout.splitlines()
        assert "2026-01-02T03:04:05Z  web-0  starting -> running (because)" == lines[1]
        out = ask(server, "events", "--since", "1", "-o", "json").stdout
        assert event(2, "because").to_json() == json.loads(out)


class TestWithoutASupervisor:
    """What the verbs say when nothing runs."""

    @pytest.mark.parametrize(
        "line",
        [
            ("ps",),
            ("status",),
            ("status", "web"),
            ("start", "web"),
            ("stop", "--all"),
            ("signal", "TERM", "web"),
            ("logs",),
            ("logs", "-f"),
            ("events",),
            ("wait", "--for", "ready", "web"),
            ("down",),
        ],
    )
    def test_69(self, tmp_path: Path, line: Sequence[str]) -> None:
        """Each says that no supervisor runs, how to start one, and exits with 69."""
        code, out, err = outcome(duende(tmp_path, *line))
        assert (69, "") == (code, out)
        assert "no supervisor" in err
        assert "up -d" in err
        assert 1 == len(err.splitlines())

    def test_a_stale_socket(self, tmp_path: Path) -> None:
        """A socket that nobody listens on is no supervisor."""
        import socket

        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "dead.sock"))
        assert 69 == duende(tmp_path, "--socket", "dead.sock", "ps").returncode

    def test_a_socket_path_that_is_too_long(self, tmp_path: Path) -> None:
        """It is refused with its length, as wrong usage."""
        code, _, err = outcome(duende(tmp_path, "--socket", "x" * 120, "ps"))
        assert 2 == code
        assert "107" in err

    def test_a_project_name_that_is_none(self, tmp_path: Path) -> None:
        """--project ../x is refused."""
        assert 78 == duende(tmp_path, "--project", "../x", "ps").returncode

    def test_ls_of_nothing(self, tmp_path: Path) -> None:
        """ls without projects is empty, not an error."""
        assert {"projects": []} == json.loads(
            duende(tmp_path, "ls", "-o", "json").stdout
        )


class TestUsage:
    """The command line itself."""

    def test_an_unknown_verb(self, tmp_path: Path) -> None:
        """The nearest verb is suggested."""
        done = duende(tmp_path, "strat")
        assert 2 == done.returncode
        assert "did you mean 'start'" in done.stderr

    @pytest.mark.parametrize("verb", ["health", "apply", "top", "upgrade"])
    def test_a_later_verb(self, tmp_path: Path, verb: str) -> None:
        """It says that it is not supported yet."""
        done = duende(tmp_path, verb)
        assert (2, True) == (done.returncode, "not supported yet" in done.stderr)

    def test_file_flag_after_the_verb(self, tmp_path: Path) -> None:
        """Every verb takes --file; -f is the file's for up and check alone."""
        (tmp_path / "a.toml").write_text('[daemon.x]\ncommand = "true"\n')
        assert 0 == duende(tmp_path, "check", "-f", "a.toml").returncode
        assert 0 == duende(tmp_path, "check", "a.toml").returncode
        assert 0 == duende(tmp_path, "-f", "a.toml", "check").returncode
        assert 69 == duende(tmp_path, "ps", "--file", "a.toml").returncode
        assert 2 == duende(tmp_path, "ps", "-f", "a.toml").returncode

    def test_no_click(self, tmp_path: Path) -> None:
        """Without click it says what to install."""
        code = (
            "import sys; sys.modules['click'] = None\n"
            "from duende.core.cli import run; sys.exit(run(['down']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(tmp_path),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (1, True) == (done.returncode, "duende-core[cli]" in done.stderr)

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_completion(self, tmp_path: Path, shell: str) -> None:
        """A script names every verb."""
        out = duende(tmp_path, "completion", shell).stdout
        for verb in (
            "init",
            "restart",
            "completion",
            "--timeout" if shell != "fish" else "timeout",
        ):
            assert verb in out

    def test_bash_completes(self, tmp_path: Path) -> None:
        """The bash script works in bash."""
        script = tmp_path / "c.bash"
        script.write_text(duende(tmp_path, "completion", "bash").stdout)
        line = (
            f"source {script}; COMP_WORDS=(duende res); COMP_CWORD=1; _duende;"
            " echo ${COMPREPLY[@]}"
        )
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, check=True, timeout=60
        )
        assert "restart resume\n" == done.stdout


class TestFiles:
    """The verbs that need no supervisor: init, check, schema, run, version, doctor."""

    def test_init_then_check(self, tmp_path: Path) -> None:
        """init writes what check accepts, and never over a file."""
        assert 0 == duende(tmp_path, "init").returncode
        before = (tmp_path / "duende.toml").read_bytes()
        assert 0 == duende(tmp_path, "check").returncode
        assert 1 == duende(tmp_path, "init").returncode
        assert before == (tmp_path / "duende.toml").read_bytes()

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            (
                "Procfile",
                "web: python -m http.server $PORT\nclock: sleep 5\n",
                "[daemon.clock]",
            ),
            ("app.py", "app = make()\n", "uvicorn app:app"),
            ("app.py", "class MyThing(Daemon):\n    pass\n", 'entry = "app:MyThing"'),
        ],
    )
    def test_init_from_what_is_here(
        self, tmp_path: Path, name: str, text: str, expected: str
    ) -> None:
        """A Procfile, an app and a Daemon class become daemons that check accepts."""
        (tmp_path / name).write_text(text)
        assert 0 == duende(tmp_path, "init").returncode
        assert expected in (tmp_path / "duende.toml").read_text()
        done = duende(tmp_path, "check")
        assert 0 == done.returncode, done.stderr

    def test_check_prints_the_plan(self, tmp_path: Path) -> None:
        """check lists the order, the programs, the backoff and the shutdown timeout."""
        (tmp_path / "duende.toml").write_text(
            '[daemon.web]\ncommand = "sleep 9"\ndepends_on = ["db"]\n'
            '[daemon.db]\ncommand = "sleep 9"\n'
        )
        out = duende(tmp_path, "check").stdout
        assert out.index("1. db") < out.index("2. web")
        assert "db (ready)" in out
        assert "1s, 2s, 4s, 8s" in out
        assert "shutdown timeout 20s" in out
        report = json.loads(duende(tmp_path, "check", "-o", "json").stdout)
        assert [1, 2, 4, 8, 16, 32, 60, 60] == report["plan"][0]["backoff"]
        assert {"db": "ready"} == report["plan"][1]["waits_for"]

    def test_check_of_a_bad_file(self, tmp_path: Path) -> None:
        """Every problem is a line on stderr, and the exit code 78."""
        (tmp_path / "duende.toml").write_text(
            '[daemon.web]\ncomand = "x"\n[daemon.b]\ncommand = "x"\nrestart = "allways"\n'
        )
        code, out, err = outcome(duende(tmp_path, "check"))
        assert (78, "") == (code, out)
        assert "did you mean 'command'" in err
        assert "did you mean 'always'" in err
        assert "Traceback" not in err
        place = f"{tmp_path / 'duende.toml'}:"
        assert [] == [line for line in err.splitlines() if line.find(place) != 0]
        code, out, _ = outcome(duende(tmp_path, "check", "-o", "json"))
        report = json.loads(out)
        assert (78, False) == (code, report["valid"])
        assert err.splitlines() == report["problems"]

    def test_schema(self, tmp_path: Path) -> None:
        """schema prints JSON."""
        assert "properties" in json.loads(duende(tmp_path, "schema").stdout)

    def test_version(self, tmp_path: Path) -> None:
        """version prints one line."""
        assert duende(tmp_path, "version").stdout.startswith("duende ")

    def test_doctor(self, tmp_path: Path) -> None:
        """doctor looks at the machine, also where nothing runs."""
        report = json.loads(duende(tmp_path, "doctor", "-o", "json").stdout)
        names = [check["name"] for check in report["checks"]]
        for name in (
            "python",
            "pidfd",
            "child subreaper",
            "open files",
            "state folder",
        ):
            assert name in names

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 7", 7), ("kill -SEGV $$", 139), ("true", 0)]
    )
    def test_run_gives_the_code(self, tmp_path: Path, script: str, code: int) -> None:
        """run -- COMMAND ends like its child."""
        assert code == duende(tmp_path, "run", "--", "sh", "-c", script).returncode

    def test_run_of_nothing(self, tmp_path: Path) -> None:
        """A program that is not there is 127; a target that is none, 2."""
        assert 127 == duende(tmp_path, "run", "--", "no-such-program").returncode
        assert 2 == duende(tmp_path, "run").returncode
        assert 2 == duende(tmp_path, "run", "nocolon").returncode

    def test_run_forwards_signals_and_leaves_nothing(self, tmp_path: Path) -> None:
        """A signal reaches the child; what it left behind ends with it."""
        script = (
            "setsid sleep 1000 & echo $! > left; trap 'exit 9' USR1;"
            " echo up; while :; do sleep 0.02; done"
        )
        with subprocess.Popen(
            [sys.executable, "-m", "duende.core", "run", "--", "sh", "-c", script],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert b"up\n" == process.stdout.readline()
            process.send_signal(signal.SIGUSR1)
        assert 9 == process.returncode
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "left").read_text()), 0)
