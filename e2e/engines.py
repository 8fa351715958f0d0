"""Container engines of a test's own, beside whatever else the machine runs.

Images hold nothing: this machine's programs are mounted read-only into the container,
so that the installed wheels and this Python run in it (nothing is built or fetched).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from .conftest import missing

IMAGE = "empty:1"
LINKS = ("/bin", "/sbin", "/lib", "/lib64")
"""What is a link into /usr on the machine, and has to be mounted by itself."""
DEADLINE = 60.0

LIMITS = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4000:4000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""podman's defaults are limits above what this user may raise itself to."""


def shown() -> list[str]:
    """This lists the folders that a container has to see to run this Python."""
    own = {sys.prefix, sys.base_prefix, str(Path(__file__).parents[1])}
    # The last is where Debian says which of several programs has a name.
    wanted = ("/usr", *LINKS, "/etc/alternatives")
    folders = [path for path in wanted if Path(path).exists()]
    # A folder within one that is shown already needs no place of its own.
    return folders + sorted(path for path in own if not path.startswith("/usr/"))


@attrs.frozen(kw_only=True)
class Engine:
    """This runs commands in containers of one engine."""

    name: str
    command: tuple[str, ...]
    environ: dict[str, str] = attrs.field(factory=dict)

    def run(self, options: tuple[str, ...], *command: str) -> str:
        """This runs a command in a container, and gives what it printed."""
        mounts = [f"--volume={path}:{path}:ro" for path in shown()]
        arguments = ["run", "--rm", "--net=none", "--pull=never", *mounts, *options]
        return self.call(*arguments, IMAGE, *command).stdout

    def call(
        self, *arguments: str, data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """This calls the engine's command."""
        done = subprocess.run(
            [*self.command, *arguments],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=DEADLINE,
            env={**os.environ, **self.environ},
            check=False,
        )
        out, err = (
            stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr)
        )
        if done.returncode:
            raise AssertionError(
                f"{self.name} {arguments}: {done.returncode}\n{err}\n{out}"
            )
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def import_image(self) -> None:
        """This makes the empty image."""
        self.call("import", "-", IMAGE, data=bytes(10240))  # an empty tar


def find(name: str, package: str) -> str:
    """This finds a program, Debian's own first, or skips."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    if found is None:
        missing(f"{name} is not installed: apt-get install {package}")
    return str(found)


@contextmanager
def podman() -> Iterator[Engine]:
    """This is podman with storage of its own; it has no daemon."""
    if os.geteuid() != 0:
        missing("needs root")
    program, runtime = find("podman", "podman"), find("runc", "runc")
    with tempfile.TemporaryDirectory(prefix="duende-podman-") as folder:
        conf = Path(folder) / "containers.conf"
        conf.write_text(LIMITS)
        places = [f"--{name}={folder}/{name}" for name in ("root", "runroot", "tmpdir")]
        engine = Engine(
            name="podman",
            command=(program, *places, "--storage-driver=vfs", f"--runtime={runtime}"),
            environ={"CONTAINERS_CONF": str(conf)},
        )
        engine.import_image()
        yield engine


@contextmanager
def docker() -> Iterator[Engine]:
    """This is a Docker daemon of its own, that leaves the machine's network alone."""
    if os.geteuid() != 0:
        missing("needs root")
    program, daemon = find("docker", "docker.io"), find("dockerd", "docker.io")
    with tempfile.TemporaryDirectory(prefix="duende-docker-") as folder:
        path = f"{folder}/docker.sock"
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(
                [
                    daemon,
                    f"--data-root={folder}/data",
                    f"--exec-root={folder}/run",
                    f"--pidfile={folder}/pid",
                    f"--host=unix://{path}",
                    "--storage-driver=vfs",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip-forward=false",
                    "--ip-masq=false",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            engine = Engine(
                name="docker", command=(program, "--host", f"unix://{path}")
            )
            try:
                wait_for_socket(path, process)
            except OSError:
                said = Path(folder, "log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"dockerd does not answer:\n{said}") from None
            engine.import_image()
            yield engine
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_socket(path: str, process: subprocess.Popen[bytes]) -> None:
    """This connects until the process listens; engines have no other way to say so."""
    deadline = time.monotonic() + DEADLINE
    while True:
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(path)
                return
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
        time.sleep(0.05)
