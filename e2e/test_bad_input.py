"""P13 and the mistakes people make: one clear message, the right exit code, no harm."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .project import Project, Result, child, free_port, until
from .world import marked

pytestmark = [pytest.mark.e2e, pytest.mark.real]

GOOD = '[daemon.a]\ncommand = "sleep 1000"\n'

BAD_FILES = {
    "no such file": (None, "duende.toml"),
    "not UTF-8": (b'[daemon.a]\ncommand = "sleep \xff"\n', "UTF-8"),
    "broken TOML": (b"[daemon.a\n", ":1"),
    "unknown key": (
        b'[daemon.a]\ncommand = "sleep 1"\n[daemon.a.restart]\npolcy = "always"\n',
        "daemon.a.restart.polcy: unknown key; did you mean 'policy'?",
    ),
    "wrong type": (b'[daemon.a]\ncommand = "sleep 1"\ninstances = "x"\n', "instances"),
    "unknown dependency": (
        b'[daemon.a]\ncommand = "sleep 1"\ndepends_on = ["bb"]\n[daemon.b]\n'
        b'command = "true"\n',
        "bb",
    ),
    "a cycle": (
        b'[daemon.a]\ncommand = "true"\ndepends_on = ["b"]\n'
        b'[daemon.b]\ncommand = "true"\ndepends_on = ["a"]\n',
        "a -> b -> a",
    ),
    "both command and entry": (
        b'[daemon.a]\ncommand = "true"\nentry = "x:Y"\n',
        "entry",
    ),
    "neither": (b"[daemon.a]\nenabled = true\n", "command"),
    "a bad name": (b'[daemon."../a"]\ncommand = "true"\n', "../a"),
    "a bad duration": (
        b'[daemon.a]\ncommand = "true"\nstop = {timeout = "5x"}\n',
        "5x",
    ),
    "shell syntax": (b'[daemon.a]\ncommand = "true | false"\n', "|"),
    "not yet": (
        b'[daemon.a]\ncommand = "true"\n[daemon.a.health]\nexec = ["true"]\n',
        "",
    ),
}


def assert_clear(result: Result, code: int | tuple[int, ...], *words: str) -> None:
    """This checks the exit code, and that a person can read what is wrong."""
    codes = (code,) if isinstance(code, int) else code
    assert result.code in codes, result
    assert result.out == "", result
    assert "Traceback" not in result.err, result
    assert result.err.strip(), result
    for word in words:
        assert word in result.err, result


def test_bad_file_starts_nothing(project: Project) -> None:
    """`check` and `up -d` refuse it alike, and nothing runs afterwards."""
    for case, (data, word) in BAD_FILES.items():
        if data is not None:
            project.file.write_bytes(data)
        if case != "not yet":  # `check` warns of it, `up` refuses
            assert_clear(project.run("check"), 78, word)
        assert_clear(project.run("up", "-d"), 78, word)
        assert [] == marked(project.mark, project.root), case


def test_p13_bad_config_changes_nothing(project: Project) -> None:
    """A file that has become bad harms nothing that runs, and verbs don't need it."""
    project.write(GOOD)
    project.up()
    before = project.row("a")
    accepted = (project.state / "accepted.json").read_bytes()
    for data, word in BAD_FILES.values():
        if data is None:
            project.file.unlink()
        else:
            project.file.write_bytes(data)
        assert_clear(project.run("up", "-d"), 78, word)
        after = project.row("a")
        assert (before["pid"], before["restarts"]) == (after["pid"], after["restarts"])
        assert accepted == (project.state / "accepted.json").read_bytes()
    assert_clear(project.run("up"), 78)
    project.ok("restart", "a")
    assert "running" == project.row("a")["state"]
    # The supervisor's successor goes on with what was accepted, too.
    pid = project.pid("a")
    project.answers_again(project.kill_control_plane())
    assert pid == project.pid("a")


def test_all_problems_are_told_at_once(project: Project) -> None:
    """Each problem has a line of its own, with file, line and key."""
    project.file.write_text(
        '[daemon.a]\ncommand = "true"\nenabeld = true\n'
        '[daemon.b]\ncommand = 3\n[daemon.c]\ncommand = "true"\ndepends_on = ["zz"]\n'
    )
    result = project.run("check")
    assert_clear(result, 78, "duende.toml:3: daemon.a.enabeld", "daemon.b", "zz")


def test_file_is_a_directory(project: Project) -> None:
    """A folder with the file's name is no file."""
    project.file.mkdir()
    assert_clear(project.run("up", "-d"), 78, "directory")


def test_file_is_unreadable(project: Project, root_only: None) -> None:
    """Somebody else's secret file can't be used."""
    project.write(GOOD)
    project.file.chmod(0o600)
    result = as_nobody(project, "check")
    assert_clear(result, (77, 78), "duende.toml")


def as_nobody(project: Project, *words: str) -> Result:
    """This runs `duende` as another user."""
    found = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        + [project.command, "--file", str(project.file), *words],
        cwd="/",
        env=project.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "Permission denied" in found.stderr and found.returncode in (126, 127):
        pytest.skip("another user can't execute this installation")
    return Result(
        argv=words, code=found.returncode, out=found.stdout, err=found.stderr, seconds=0
    )


def test_state_folder_cant_be_written(project: Project, root_only: None) -> None:
    """Without a place for its state nothing is started, and it is said where."""
    project.write(GOOD)
    result = as_nobody(project, "up", "-d")
    assert_clear(result, 77, str(project.root / "state"))
    assert [] == marked(project.mark, project.root)


def write_bad_programs(project: Project) -> None:
    """These are a module that breaks, one without a Daemon, and no program."""
    (project.root / "broken.py").write_text("import no_such_module_anywhere\n")
    (project.root / "plain.py").write_text("class Thing:\n    pass\n")
    (project.root / "text").write_text("no program\n")


BAD_DAEMONS = {
    "program not found": (
        'command = "no-such-program-here"\n',
        ("no-such-program-here",),
    ),
    "not executable": ('command = "./text"\n', ("text",)),
    "module does not import": (
        f'entry = "broken:Thing"\npython = "{sys.executable}"\n',
        ("no_such_module_anywhere",),
    ),
    "no Daemon": (
        f'entry = "plain:Thing"\npython = "{sys.executable}"\n',
        ("plain:Thing",),
    ),
    "unknown user": ('command = "true"\nuser = "no-such-user"\n', ("no-such-user",)),
    "no working_dir": (
        'command = "sleep 1000"\nworking_dir = "nowhere"\n',
        ("nowhere",),
    ),
}


@pytest.mark.parametrize("case", BAD_DAEMONS)
def test_bad_daemon_is_named_and_others_run(project: Project, case: str) -> None:
    """`up -d` says which daemon is wrong and why, 1 (78 if the file is), in time."""
    write_bad_programs(project)
    text, words = BAD_DAEMONS[case]
    project.write(f"[daemon.bad]\n{text}{GOOD}")
    result = project.run("up", "-d", timeout=40)
    assert_clear_but_for_logs(result, (1, 78), "bad", *words)
    if result.code == 1:
        assert "running" == project.row("a")["state"]
        assert project.row("bad")["state"] in ("failed", "backoff")


def assert_clear_but_for_logs(
    result: Result, codes: tuple[int, ...], *words: str
) -> None:
    """The daemon's own last lines may hold its traceback; ours may not be in it."""
    assert result.code in codes, result
    assert "duende/core/cli" not in result.err, result
    for word in words:
        assert word in result.err, result


def test_port_is_taken(project: Project) -> None:
    """A daemon that can't bind fails, and its last lines are shown."""
    port = free_port()
    serve = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    words = ", ".join(f'"{word}"' for word in serve)
    text = f'command = [{words}]\nready = "http://127.0.0.1:{port}/"\n'
    project.write(f"[daemon.a]\n{text}[daemon.b]\n{text}depends_on = ['a']\n")
    result = project.run("up", "-d")
    # b's check is answered by a, until b has ended: that both outcomes are told of.
    rows = project.rows()
    assert rows["a"]["ready"]
    if result.code:
        assert_clear_but_for_logs(result, (1,), "b", "Address already in use")
    project.is_in("b", "backoff")
    assert any("Address already in use" in line for line in project.log("b"))


NOTHING_RUNS = [
    (("ps",), 69),
    (("stop", "a"), 69),
    (("wait", "--for", "ready", "a"), 69),
    (("frobnicate",), 2),
    (("up", "--frobnicate"), 2),
    (("wait", "a"), 2),
    (("stop",), 2),
]


def test_wrong_commands(project: Project) -> None:
    """What can't be done now is 69, what can't be understood is 2."""
    project.write(GOOD)
    for words, code in NOTHING_RUNS:
        assert_clear(project.run(*words), code)


SOMETHING_RUNS = [
    (("stop", "nobody"), 4),
    (("status", "nobody"), 4),
    (("up", "-d", "nobody"), 4),
    (("signal", "SIGFOO", "a"), 2),
    (("wait", "--for", "stopped", "--timeout", "0.2s", "a"), 124),
    (("wait", "--for", "running", "--timeout", "nonsense", "a"), 2),
    (("up",), 1),
]


def test_wrong_names(project: Project) -> None:
    """An unknown daemon is 4, a bad argument 2, and what runs is unharmed."""
    project.write(GOOD)
    project.up()
    pid = project.pid("a")
    for words, code in SOMETHING_RUNS:
        assert_clear(project.run(*words), code)
    assert pid == project.pid("a")


def test_socket_path_is_too_long(project: Project) -> None:
    """A path that can't be a socket's is refused at once."""
    project.write(GOOD)
    long = str(project.root / ("x" * 120) / "s.sock")
    assert_clear(project.run("up", "-d", "--socket", long), 2, "107")
    assert [] == marked(project.mark, project.root)


def test_stale_socket_is_no_obstacle(project: Project) -> None:
    """What a killed supervisor left is replaced; `ps` before that says 69."""
    project.write(GOOD)
    project.up()
    for pid in (project.keeper_pid(), project.control_pid(), project.pid("a")):
        os.kill(pid, 9)
    assert project.socket.exists()
    assert 69 == project.run("ps").code
    # How a ended nobody can say, so its policy decides: it may be a moment late.
    assert project.run("up", "-d").code in (0, 1)
    project.is_in("a", "running")


def test_disk_full(project: Project, root_only: None) -> None:
    """A full disk loses output, counted, and neither the daemon nor the supervisor."""
    small = project.root / "state"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "duende-e2e", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        project.write(
            f"[daemon.a]\ncommand = {child('lines', 300_000, 'stay')}\n"
            + GOOD.replace("daemon.a", "daemon.b")
        )
        project.up()
        written = project.root / "written"
        until(written.exists, "the daemon was never blocked", 30.0)
        until(
            lambda: (
                project.row("a")["state"] == "running"
                and project.get("/v1/daemons")["daemons"]
            ),
            "the supervisor answers",
        )
        project.ok("stop", "b")
        project.ok("start", "b")
        project.ok("ps")
        data = (project.state / "logs" / "a.log").read_bytes()
        assert data.endswith(b"\n")
        (project.state / "logs" / "a.log").write_bytes(b"")
        project.ok("down")
    finally:
        project.run("down")
        subprocess.run(["umount", "-l", str(small)], check=False)
