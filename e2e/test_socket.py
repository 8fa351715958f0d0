"""P18: the control socket is private, and a stale one is seen as such."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from .project import Project, until
from .world import lives

pytestmark = [pytest.mark.e2e, pytest.mark.real]

GOOD = '[daemon.a]\ncommand = "sleep 1000"\n'

INTRUDER = """
import socket, sys
stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
stream.settimeout(10)
try:
    stream.connect(sys.argv[1])
    stream.sendall(sys.argv[2].encode().decode("unicode_escape").encode())
    data = b""
    while part := stream.recv(65536):
        data += part
except OSError as err:
    print("refused", type(err).__name__)
else:
    print("answered", data.decode("latin-1"))
"""
HTTP = r"GET /v1/daemons HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
KEEPER = r'{"id": 1, "op": "peek"}' + r"\n"


def intrude(path: Path, text: str) -> str:
    """This talks to a socket as user nobody, and says what came of it."""
    found = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        + ["/usr/bin/env", "python3", "-c", INTRUDER, str(path), text],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
    )
    if not found.stdout:
        pytest.skip(f"another user can't run Python here: {found.stderr[:200]}")
    return found.stdout


def mode_of(path: Path) -> str:
    """This is a file's permissions, in octal."""
    return oct(stat.S_IMODE(path.lstat().st_mode))


def test_p18_folders_and_files_are_private(project: Project) -> None:
    """State 0700, runtime 0711, control 0700, sockets and logs 0600, umask 0 or not."""
    project.write("[daemon.a]\ncommand = ['/bin/sh', '-c', 'echo hello; sleep 1000']\n")
    before = os.umask(0)
    try:
        project.up()
    finally:
        os.umask(before)
    until(lambda: project.log("a"), "it has written something")
    wanted = {
        project.state: "0o700",
        project.runtime: "0o711",
        project.runtime / "control": "0o700",
        project.socket: "0o600",
        project.state / "keeper.sock": "0o600",
        project.state / "journal": "0o600",
        project.state / "accepted.json": "0o600",
        project.state / "events.jsonl": "0o600",
        project.state / "logs": "0o700",
        project.state / "logs" / "a.log": "0o600",
    }
    assert wanted == {path: mode_of(path) for path in wanted}


def test_p18_another_user_does_not_even_reach_the_socket(
    project: Project, root_only: None
) -> None:
    """The folder keeps everybody else out."""
    project.write(GOOD)
    project.up()
    assert "refused PermissionError\n" == intrude(project.socket, HTTP)
    assert "refused PermissionError\n" == intrude(project.state / "keeper.sock", KEEPER)


def test_p18_another_user_is_refused_by_who_he_is(
    project: Project, root_only: None
) -> None:
    """With every permission opened by mistake, the peer's uid still decides."""
    project.write(GOOD)
    project.up()
    for path in (project.root / "run", project.runtime, project.runtime / "control"):
        path.chmod(0o755)
    for path in (project.root / "state", project.root / "state/duende", project.state):
        path.chmod(0o755)
    project.socket.chmod(0o666)
    (project.state / "keeper.sock").chmod(0o666)
    for path, text in ((project.socket, HTTP), (project.state / "keeper.sock", KEEPER)):
        said = intrude(path, text)
        assert "sleep" not in said
        assert '"pid"' not in said
        assert '"a"' not in said
        assert "200" not in said
    project.ok("ps")


def test_p18_a_stale_socket_is_seen_as_such(project: Project) -> None:
    """A socket without a listener means 69, not a hang; the lock decides, not the file."""
    project.write(GOOD)
    project.up()
    pids = [project.keeper_pid(), project.control_pid(), project.pid("a")]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert project.socket.exists()
    result = project.run("ps", timeout=10)
    assert 69 == result.code
    assert "up -d" in result.err
    # The pids in the lock and the record may be somebody else's by now.
    (project.state / "lock").write_text(f"{os.getpid()}\n")
    assert 69 == project.run("ps", timeout=10).code
    project.run("up", "-d")
    project.is_in("a", "running")
    assert lives(os.getpid())


@pytest.mark.parametrize("place", ["state", "runtime", "control"])
def test_p18_folders_of_somebody_else_are_refused(
    project: Project, root_only: None, place: str
) -> None:
    """Nothing is put where another user could read or replace it."""
    project.write(GOOD)
    project.up()
    folder = {
        "state": project.state,
        "runtime": project.runtime,
        "control": project.runtime / "control",
    }[place]
    project.ok("down")
    os.chown(folder, 65534, 65534)
    result = project.run("up", "-d")
    assert result.code in (1, 77), result
    assert "Traceback" not in result.err
    assert str(folder) in result.err
    assert [] == project.leftovers()


def test_p18_links_are_not_followed(project: Project, root_only: None) -> None:
    """A link in the place of a folder, a socket or a log doesn't lead us astray."""
    project.write(GOOD)
    project.up()
    control, logs = project.runtime / "control", project.state / "logs"
    project.ok("down")
    victim = project.root / "victim"
    victim.write_text("precious\n")
    (control / "duende.sock").unlink(missing_ok=True)
    (logs / "a.log").unlink(missing_ok=True)
    (logs / "a.log").symlink_to(victim)
    result = project.run("up", "-d")
    assert 1 == result.code
    assert "a" in result.err
    assert "precious\n" == victim.read_text()
    project.ok("down")
    (logs / "a.log").unlink()
    (control / "duende.sock").unlink(missing_ok=True)
    (control / "duende.sock").symlink_to(victim)
    result = project.run("up", "-d")
    assert 1 == result.code, result
    assert "no socket" in result.err
    assert "precious\n" == victim.read_text()
    assert [] == project.leftovers()


def test_p18_no_replaced_socket_of_a_living_supervisor(project: Project) -> None:
    """`--socket` at the path of somebody who listens is refused; that one is unharmed."""
    project.write(GOOD)
    project.up()
    other = project.root / "other"
    other.mkdir()
    (other / "duende.toml").write_text(GOOD)
    result = project.run(
        "up",
        "-d",
        "--file",
        str(other / "duende.toml"),
        "--socket",
        str(project.socket),
    )
    assert 1 == result.code, result
    assert "another supervisor listens" in result.err
    assert "running" in project.ok("ps").out


if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)
