"""What works here: each thing is tried, and what does not work says why."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from duende.platform import Capability, World, capabilities, explain_capabilities
from duende.platform.capabilities import NAMES

if sys.platform != "linux":
    pytest.skip("probes Linux", allow_module_level=True)

from duende.platform.probes import answers, cgroups, engines, kernel, managers, tools

pytestmark = pytest.mark.real

DOCKER = {"Version": "28.2.2", "ApiVersion": "1.50", "Platform": {"Name": "Docker"}}
PODMAN = {
    "Version": "4.9.4",
    "ApiVersion": "1.41",
    "Components": [{"Name": "Podman Engine"}],
}

Serve = Callable[[bytes | None], str]


def http(answer: object, status: str = "200 OK") -> bytes:
    """An engine's answer."""
    body = json.dumps(answer).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can look into."""
    with tempfile.TemporaryDirectory(prefix="duende-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def serve(open_folder: Path) -> Iterator[Serve]:
    """This serves one fixed answer at a Unix socket; None is a server that hangs."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: bytes | None) -> str:
        path = str(open_folder / f"engine{len(listeners)}.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen()
        listeners.append(listener)
        if answer is not None:
            thread = threading.Thread(target=reply, args=(listener, answer))
            thread.start()
            threads.append(thread)
        return path

    def reply(listener: socket.socket, answer: bytes) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            peer.recv(4096)
            peer.sendall(answer)

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


def at(path: str) -> World:
    """A world with an engine's socket in the environment."""
    return World(
        "/", {"DOCKER_HOST": f"unix://{path}", "CONTAINER_HOST": f"unix://{path}"}
    )


def test_all_are_answered() -> None:
    """Each name once and in order; what isn't usable has its reason."""
    found = capabilities()
    assert tuple(found) == NAMES
    for name, each in found.items():
        assert each.name == name
        assert each.reason
        assert each.usable is (each.state == "usable")
        assert not (each.usable and each.mend)
    assert found["launchd"].state == "absent"
    text = explain_capabilities(found)
    assert all(name in text for name in NAMES)


def test_nothing_stays(tmp_path: Path) -> None:
    """Descriptors, children and control groups are what they were before."""
    code = """
import glob, os
from duende.platform import capabilities
from duende.mlock.cgroups import own_cgroups
capabilities()
before = sorted(os.listdir("/proc/self/fd"))
capabilities()
assert sorted(os.listdir("/proc/self/fd")) == before
for group in own_cgroups("")[:1]:
    assert not glob.glob(group.path + "/duende-probe-*")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("clean")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "clean\n", done.stderr


def test_an_engine_that_answers(serve: Serve) -> None:
    """It is usable, with its version."""
    found = engines.probe_docker(at(serve(http(DOCKER))))
    assert (found.state, found.details["version"], found.details["api"]) == (
        "usable",
        "28.2.2",
        "1.50",
    )
    assert engines.probe_podman(at(serve(http(PODMAN)))).usable


def test_the_other_engine_at_the_socket(serve: Serve) -> None:
    """podman answers docker's questions; it is not taken for docker."""
    found = engines.probe_docker(at(serve(http(PODMAN))))
    assert (found.state, "podman serves" in found.reason) == ("unusable", True)
    assert engines.probe_podman(at(serve(http(DOCKER)))).state == "unusable"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b"SSH-2.0-OpenSSH\r\n",
        http(DOCKER, "500 Internal Server Error"),
        b"\xff" * 100,
        b"[" * 300_000,
    ],
)
def test_something_else_at_the_socket(serve: Serve, answer: bytes) -> None:
    """What is no engine is unusable, and nothing raises."""
    found = engines.probe_docker(at(serve(answer)))
    assert found.state == "unusable"


def test_an_engine_that_hangs(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the bound it counts as unusable, with what to do."""
    monkeypatch.setattr(answers, "SECONDS", 0.05)
    found = engines.probe_docker(at(serve(None)))
    assert (found.state, "timed out" in found.reason) == ("unusable", True)
    assert "DOCKER_HOST" in found.mend


def test_an_engine_that_dribbles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then does not stretch the bound."""
    monkeypatch.setattr(answers, "SECONDS", 0.2)
    path = str(tmp_path / "slow.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    gone = threading.Event()

    def dribble() -> None:
        peer, _ = listener.accept()
        with peer:
            try:
                while not gone.wait(0.02):
                    peer.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        assert engines.probe_docker(at(path)).state == "unusable"
    finally:
        gone.set()
        thread.join()
        listener.close()


def test_no_engine_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without program and socket it is absent; with the program, unusable."""
    monkeypatch.setenv("PATH", str(tmp_path))
    world = at(str(tmp_path / "none.sock"))
    assert engines.probe_docker(world).state == "absent"
    assert "apt-get install podman" in engines.probe_podman(world).mend
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = engines.probe_docker(world)
    assert (found.state, "nothing serves" in found.reason) == ("unusable", True)


def test_an_engine_elsewhere() -> None:
    """A DOCKER_HOST of another kind is named, not followed."""
    found = engines.probe_docker(World("/", {"DOCKER_HOST": "tcp://10.0.0.1:2375"}))
    assert (found.state, "tcp://10.0.0.1" in found.reason) == ("unusable", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_an_engine_of_somebody_else(serve: Serve) -> None:
    """A socket that may not be opened is there, and names the group and the price."""
    path = serve(http(DOCKER))
    os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
    os.seteuid(65534)
    try:
        found = engines.probe_docker(at(path))
    finally:
        os.seteuid(0)
    assert (found.state, "group docker" in found.mend) == ("unusable", True)


def fake_program(folder: Path, name: str, script: str) -> None:
    """A program of that name."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def booted(folder: Path) -> World:
    """A machine that was booted with systemd."""
    (folder / "run/systemd/system").mkdir(parents=True)
    return World(str(folder), {"XDG_RUNTIME_DIR": str(folder)})


def test_systemd_that_answers_or_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version and state are told; a failing systemctl is quoted."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    world = booted(tmp_path / "machine")
    fake_program(tmp_path, "systemctl", "echo Version=257; echo SystemState=degraded")
    found = managers.probe_systemd_system(world)
    assert found.details == {"version": "257", "state": "degraded"}
    assert found.usable is (os.geteuid() == 0)
    fake_program(tmp_path, "systemctl", "echo 'Failed to connect to bus'; exit 1")
    found = managers.probe_systemd_system(world)
    assert (found.state, "Failed to connect to bus" in found.reason) == (
        "unusable",
        True,
    )


def test_systemd_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a manager the line that starts one is given; linger is told."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    world = booted(tmp_path / "machine")
    found = managers.probe_systemd_user(world)
    assert (found.state, "enable-linger" in found.mend) == ("unusable", True)
    private = tmp_path / "machine/systemd/private"
    private.parent.mkdir()
    private.touch()
    fake_program(tmp_path, "systemctl", "echo Version=257")
    found = managers.probe_systemd_user(world)
    assert (found.usable, found.details["linger"]) == (True, "no")
    assert "without linger" in found.reason


def test_a_machine_without_systemd(tmp_path: Path) -> None:
    """It is absent, and both say it."""
    world = World(str(tmp_path), {})
    assert managers.probe_systemd_system(world).state == "absent"
    assert managers.probe_systemd_user(world).state == "absent"


def test_a_program_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended after the bound."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(answers, "SECONDS", 0.1)
    fake_program(tmp_path, "wasmtime", "sleep 100; echo wasmtime")
    found = tools.probe_wasmtime(World("/", {"PATH": str(tmp_path)}))
    assert (found.state, "no answer" in found.reason) == ("unusable", True)
    fake_program(tmp_path, "wasmtime", "echo wasmtime 30.0.0")
    monkeypatch.setattr(answers, "SECONDS", 30)
    found = tools.probe_wasmtime(World("/", {"PATH": str(tmp_path)}))
    assert found.details == {"version": "wasmtime 30.0.0"}


def test_a_program_that_says_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exit code of 0 without the answer is none."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("wasmtime", "systemctl"):
        fake_program(tmp_path, name, "echo hello")
    world = World("/", {"PATH": str(tmp_path)})
    assert tools.probe_wasmtime(world).state == "unusable"
    assert managers.probe_systemd_system(booted(tmp_path / "m")).state == "unusable"


def test_version_2_without_the_controllers(tmp_path: Path) -> None:
    """It is there and of no use for limits; the way out depends on who has them."""
    top = "/sys/fs/cgroup"
    files = {
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": f"1 0 0:1 / {top} rw - cgroup2 cgroup2 rw\n",
        f"{top}/cgroup.controllers": "cpu pids",
    }
    for path, text in files.items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = cgroups.probe_cgroup_v2(World(str(tmp_path), {}))
    assert (found.state, "without memory" in found.reason) == ("unusable", True)
    assert "Delegate=yes" in found.mend
    assert cgroups.probe_cgroup_v1(World(str(tmp_path), {})).state == "absent"
    nothing = World(str(tmp_path / "none"), {})
    assert cgroups.probe_cgroup_v2(nothing).state == "absent"
    assert cgroups.probe_kill(nothing).state == "absent"


def test_a_kernel_that_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a filter refuses is there and unusable; what is missing is absent."""

    def refuse(number: int) -> Callable[[int], int]:
        def call(pid: int) -> int:
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "pidfd_open", refuse(1))
    assert kernel.probe_pidfd(World()).state == "unusable"
    monkeypatch.setattr(os, "pidfd_open", refuse(38))
    found = kernel.probe_pidfd(World())
    assert (found.state, found.mend) == ("absent", "it takes Linux 5.3")


FILTERED = """
import ctypes, json, platform, struct
ARCH = {"x86_64": {"unshare": 272, "socket": 41}, "aarch64": {"unshare": 97, "socket": 198}}
numbers = ARCH[platform.machine()]
def rule(code, jt, jf, k): return struct.pack("HBBI", code, jt, jf, k)
def build(pairs):
    out = rule(0x20, 0, 0, 0)
    for number, error in pairs:
        out += rule(0x15, 0, 1, number) + rule(0x06, 0, 0, 0x00050000 | error)
    return out + rule(0x06, 0, 0, 0x7fff0000)
code = build([(444, 95), (434, 1), (numbers["unshare"], 1)])
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
from duende.platform import capabilities
print(json.dumps({k: v.state for k, v in capabilities().items()}))
"""


def test_a_process_under_a_filter() -> None:
    """A real seccomp filter: what it refuses is unusable, the rest goes on."""
    done = subprocess.run(
        [sys.executable, "-c", FILTERED],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = {
        "landlock": "unusable",
        "pidfd": "unusable",
        "user-namespaces": "unusable",
    }
    assert {name: found[name] for name in expected} == expected
    assert found["subreaper"] == "usable"


def test_text_of_others_is_shown_not_obeyed() -> None:
    """An engine's version can't move the cursor."""
    each = Capability(
        name="x", state="usable", reason="ok", details={"version": "\x1b[2J"}
    )
    assert explain_capabilities({"x": each}).isprintable()
