"""Where a program runs, asked in the real places, and what others answer there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import missing
from .engines import (
    IMAGE,
    LIMITS,
    LINKS,
    Engine,
    docker,
    find,
    podman,
    shown,
    wait_for_socket,
)
from .guest import run_in_guest

pytestmark = [pytest.mark.e2e]

PLATFORM = (sys.executable, "-m", "duende.platform", "-o", "json")
RIVALS = """
# Its exit code says whether there is virtualization; without words it has failed.
found=$(systemd-detect-virt 2>/dev/null); echo "detect-virt ${found:-failed}"
found=$(virt-what 2>/dev/null) || found=failed
echo "virt-what" $found
test -e /.dockerenv && echo "dockerenv docker" || echo "dockerenv no"
grep -q docker /proc/self/cgroup && echo "cgroup docker" || echo "cgroup no"
"""
MIB = 1024 * 1024


class Table:
    """This collects what each place was taken for, and prints it at the end."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = [
            (
                "place",
                "duende",
                "systemd-detect-virt",
                "virt-what",
                "/.dockerenv",
                "cgroup",
            )
        ]

    def add(self, place: str, found: dict[str, Any], rivals: str) -> None:
        """This adds a row."""
        said = {
            name: answer.strip() or "-"
            for name, _, answer in (line.partition(" ") for line in rivals.splitlines())
        }
        container, machine = found["container"], found["virtual_machine"]
        ours = " on ".join(each for each in (container, machine) if each) or "no"
        order = ("detect-virt", "virt-what", "dockerenv", "cgroup")
        self.rows.append((place, ours, *(said.get(name, "?") for name in order)))

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            )
            for row in self.rows
        )


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """What all places were taken for, printed after the last."""
    made = Table()
    yield made
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n\n{made}\n")


@pytest.fixture(scope="module")
def podman_engine() -> Iterator[Engine]:
    """One podman for all tests."""
    with podman() as engine:
        yield engine


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[Engine]:
    """One Docker daemon for all tests."""
    with docker() as engine:
        yield engine


def ask(*prefix: str, **environ: str) -> dict[str, Any]:
    """This asks where a process is that is started with a command before it."""
    done = subprocess.run(
        [*prefix, *PLATFORM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ask_rivals(*prefix: str) -> str:
    """This asks the others."""
    done = subprocess.run(
        [*prefix, "sh", "-c", RIVALS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def is_first_pid_namespace() -> bool:
    """This asks the kernel whether this machine's own tests run in a container."""
    return os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"


def test_on_the_host(table: Table) -> None:
    """It is Linux if the first pid namespace is ours, whatever lies around."""
    found = ask()
    if is_first_pid_namespace():
        assert (found["platform"], found["container"]) == ("linux", None)
    assert found["limits"]["memory_available"] > 0
    table.add("this machine", found, ask_rivals())


@pytest.mark.usefixtures("root_only")
def test_under_unshare(table: Table) -> None:
    """A pid namespace alone makes no container."""
    prefix = ("unshare", "--pid", "--fork", "--mount-proc")
    found = ask(*prefix)
    assert found["pid_namespace"] is True
    if is_first_pid_namespace():
        assert (found["platform"], found["container"]) == ("linux", None)
        table.add("unshare --pid", found, ask_rivals(*prefix))


def test_in_a_user_namespace() -> None:
    """It is seen, and is no container by itself."""
    prefix = ("unshare", "--user", "--map-root-user")
    if subprocess.run([*prefix, "true"], check=False, timeout=30).returncode:
        pytest.skip("user namespaces are forbidden here")
    found = ask(*prefix)
    assert found["user_namespace"] is True
    if is_first_pid_namespace():
        assert (found["platform"], found["container"]) == ("linux", None)


@pytest.mark.usefixtures("root_only")
def test_in_a_chroot(table: Table) -> None:
    """It is seen as one, and is no container."""
    with tempfile.TemporaryDirectory(prefix="duende-chroot-") as folder:
        lines = ["set -e"]
        for path in (*shown(), "/proc", "/sys", "/dev", "/run"):
            target = shlex.quote(f"{folder}{path}")
            lines += [f"mkdir -p {target}", f"mount --rbind {path} {target}"]
        # Process 1 stays outside of it, and belongs to us, so that it may be looked at.
        script = "\n".join([*lines, f'chroot {folder} "$@"', "exit $?"])
        within = (
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            "sh",
            "-c",
            script,
            "sh",
        )
        found = ask(*within)
        assert found["chroot"] is True
        if is_first_pid_namespace():
            assert (found["platform"], found["container"]) == ("linux", None)
            table.add("chroot", found, ask_rivals(*within))


@pytest.mark.podman
def test_in_podman(podman_engine: Engine, table: Table) -> None:
    """Its kind and its limits are seen from within."""
    options = ("--memory=64m", "--cpus=0.5")
    found = json.loads(podman_engine.run(options, *PLATFORM))
    assert (found["platform"], found["container"]) == ("container", "podman")
    assert found["confidence"] > 0.95
    assert found["pid_namespace"] is True
    assert found["limits"]["memory_limit"] == 64 * MIB
    assert 0 < found["limits"]["memory_available"] < 64 * MIB
    assert found["limits"]["cpu_limit"] == 0.5
    rivals = podman_engine.run((), "/usr/bin/sh", "-c", RIVALS)
    table.add("podman", found, rivals)


@pytest.mark.podman
def test_in_podman_with_the_hosts_pids(podman_engine: Engine, table: Table) -> None:
    """Sharing the pid namespace does not hide a container."""
    options = ("--pid=host", "--uts=host", "--ipc=host")
    found = json.loads(podman_engine.run(options, *PLATFORM))
    assert (found["platform"], found["container"]) == ("container", "podman")
    rivals = podman_engine.run(options, "/usr/bin/sh", "-c", RIVALS)
    table.add("podman, the host's namespaces", found, rivals)


@pytest.mark.docker
def test_in_docker(docker_engine: Engine, table: Table) -> None:
    """Its kind and its limits are seen from within."""
    options = ("--memory=64m", "--cpus=0.5", "--cpuset-cpus=0")
    found = json.loads(docker_engine.run(options, *PLATFORM))
    assert (found["platform"], found["container"]) == ("container", "docker")
    assert found["confidence"] > 0.95
    assert found["limits"]["memory_limit"] == 64 * MIB
    assert found["limits"]["cpu_limit"] == 0.5
    table.add("docker", found, docker_engine.run((), "/usr/bin/sh", "-c", RIVALS))
    found = json.loads(docker_engine.run(("--cpuset-cpus=0",), *PLATFORM))
    assert found["limits"]["memory_limit"] is None
    assert found["limits"]["cpu_limit"] == (1 if (os.cpu_count() or 1) > 1 else None)


@pytest.mark.docker
def test_in_docker_with_the_hosts_pids(docker_engine: Engine, table: Table) -> None:
    """It is a container also when it shares the host's namespaces."""
    options = ("--pid=host", "--uts=host", "--ipc=host")
    found = json.loads(docker_engine.run(options, *PLATFORM))
    assert (found["platform"], found["container"]) == ("container", "docker")
    rivals = docker_engine.run(options, "/usr/bin/sh", "-c", RIVALS)
    table.add("docker, the host's namespaces", found, rivals)


@pytest.mark.docker
def test_locking_in_docker(docker_engine: Engine) -> None:
    """Without the right it is refused with docker's line, with it memory is locked."""
    test = (sys.executable, "-m", "duende.mlock", "test", "-o", "json")
    locked = json.loads(docker_engine.run(("--cap-add=IPC_LOCK",), *test))
    assert locked["state"] == "locked"
    assert locked["bytes_locked"] > MIB
    limit = "--ulimit=memlock=65536:65536"
    diagnose = (sys.executable, "-m", "duende.mlock", "diagnose", "-o", "json")
    # The command says with its exit code that it can't be done.
    shell = f"{shlex.join(diagnose)}; true"
    found = json.loads(docker_engine.run((limit,), "/usr/bin/sh", "-c", shell))
    assert found["can_lock"] is False
    assert found["remedies"][0]["place"] == "docker"
    assert "--cap-add=IPC_LOCK" in found["remedies"][0]["lines"][0]


@pytest.mark.docker
def test_a_docker_engine_is_found(
    docker_engine: Engine,
) -> None:
    """The probe asks the real engine, and names its version."""
    each = ask(DOCKER_HOST=docker_engine.command[-1])["capabilities"]["docker"]
    assert each["state"] == "usable"
    version = docker_engine.call("version", "--format={{.Server.Version}}").stdout
    assert each["details"]["version"] == version.strip()


NOBODY = """
import os
from duende.platform import survey
survey()  # imports everything, as nobody may not read where it lies
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print(survey().as_json())
"""

NESTED = """
set -e
mkdir /tmp/podman
cat >/tmp/podman/conf <<CONF
{conf}
CONF
export CONTAINERS_CONF=/tmp/podman/conf
engine="podman --root /tmp/podman/r --runroot /tmp/podman/s --tmpdir /tmp/podman/t"
engine="$engine --storage-driver vfs"
head -c 10240 /dev/zero | $engine import - {image} >&2
run="$engine run --rm --net none --pull never {volumes}"
$run -m 64m --cpus 0.5 {image} {platform} >"$OUT/podman"
$run {image} /usr/bin/sh -c {rivals} >"$OUT/podman-rivals"

mkdir -p /tmp/machine/usr
cd /tmp/machine
mkdir etc proc sys dev tmp run var root
touch etc/os-release
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
nspawn="systemd-nspawn --quiet --register=no --keep-unit -D /tmp/machine {binds}"
$nspawn {platform} >"$OUT/nspawn"
$nspawn sh -c {rivals} >"$OUT/nspawn-rivals"
for file in podman nspawn; do
    echo "$file $(tr -d '\\n\\r' <"$OUT/$file")"
    sed "s/^/$file-rival /" "$OUT/$file-rivals" | tr -d '\\r'
done
"""

UNIT = """
set -e
{platform} >"$OUT/guest"
sh -c {rivals} >"$OUT/rivals"
systemd-run --wait --pipe --quiet --property=MemoryMax=96M --property=CPUQuota=25% \\
    --property=MemorySwapMax=0 {platform} >"$OUT/unit"
systemd-run --wait --pipe --quiet --property=MemoryMax=200M --slice=outer.slice \\
    true
systemctl set-property --runtime outer.slice MemoryMax=80M
systemd-run --wait --pipe --quiet --property=MemoryMax=200M --slice=outer.slice \\
    {platform} >"$OUT/nested"
systemd-run --wait --pipe --quiet --property=Delegate=yes {platform} >"$OUT/delegated"
systemd-run --wait --pipe --quiet --property=PrivateIPC=yes \\
    --property=ProtectHostname=yes {platform} >"$OUT/hardened"
systemd-run --wait --pipe --quiet {nobody} >"$OUT/nobody"
for file in guest unit nested delegated hardened nobody; do
    echo "$file $(tr -d '\\n' <"$OUT/$file")"
done
sed 's/^/rival /' "$OUT/rivals"
"""


@pytest.mark.uml
def test_in_a_guest_with_systemd(table: Table) -> None:
    """Real units: limits of version 2, nested ones, delegation, hardening, a user."""
    script = UNIT.format(
        platform=shlex.join(PLATFORM),
        rivals=shlex.quote(RIVALS),
        nobody=shlex.join([sys.executable, "-c", NOBODY]),
    )
    result = run_in_guest(script, seconds=240)
    assert result.code == 0, result.output
    lines = dict(
        line.split(" ", 1)
        for line in result.output.splitlines()
        if line.split(" ", 1)[-1].startswith("{")
    )
    found = {name: json.loads(text) for name, text in lines.items()}
    for name, each in found.items():
        assert (each["platform"], each["container"]) == ("linux", None), name
        assert each["virtual_machine"] == "uml", name
        assert each["cgroup_version"] == 2, name
    assert found["unit"]["limits"]["memory_limit"] == 96 * MIB
    assert found["unit"]["limits"]["memory_available"] < 96 * MIB
    assert found["unit"]["limits"]["cpu_limit"] == 0.25
    assert found["nested"]["limits"]["memory_limit"] == 80 * MIB
    spaces = [each for each in found["hardened"]["evidence"] if "ns" in each["source"]]
    assert any("ipc" in each["found"] for each in spaces)
    delegated = found["delegated"]["capabilities"]
    for name in ("systemd-system", "cgroup-v2", "cgroup-kill", "cgroup-freeze"):
        assert delegated[name]["state"] == "usable", delegated[name]
    assert "memory" in delegated["cgroup-v2"]["details"]["controllers"]
    owned = found["unit"]["capabilities"]["cgroup-v2"]
    assert (owned["state"], "systemd's own" in owned["reason"]) == ("unusable", True)
    nobody = found["nobody"]["capabilities"]
    assert nobody["systemd-system"]["state"] == "unusable"
    assert nobody["cgroup-v2"]["state"] == "unusable"
    assert "Delegate=yes" in nobody["cgroup-v2"]["mend"]
    rivals = [line[6:] for line in result.output.splitlines() if line[:6] == "rival "]
    table.add("User-mode Linux guest", found["guest"], "\n".join(rivals))


@pytest.mark.uml
@pytest.mark.podman
def test_in_containers_of_a_guest(table: Table) -> None:
    """podman and systemd-nspawn where there is only version 2 of control groups."""
    find("podman", "podman")
    find("systemd-nspawn", "systemd-container")
    script = NESTED.format(
        conf=LIMITS,
        image=IMAGE,
        platform=shlex.join(PLATFORM),
        rivals=shlex.quote(RIVALS),
        volumes=shlex.join(f"--volume={path}:{path}:ro" for path in shown()),
        binds=shlex.join(f"--bind-ro={path}" for path in shown() if path not in LINKS),
    )
    result = run_in_guest(script, seconds=240)
    assert result.code == 0, result.output
    lines = [line.partition(" ")[::2] for line in result.output.splitlines()]
    for name, container in (("podman", "podman"), ("nspawn", "systemd-nspawn")):
        found = json.loads(next(text for kind, text in lines if kind == name))
        assert (found["platform"], found["container"]) == ("container", container)
        assert found["virtual_machine"] == "uml"
        rivals = "\n".join(text for kind, text in lines if kind == f"{name}-rival")
        table.add(f"{name} in that guest", found, rivals)
        if name == "podman":
            assert found["cgroup_version"] == 2
            assert found["limits"]["memory_limit"] == 64 * MIB
            assert found["limits"]["cpu_limit"] == 0.5


@pytest.mark.podman
def test_a_podman_service_is_found(podman_engine: Engine, tmp_path: Path) -> None:
    """The probe asks the real API service; for docker's it is not taken."""
    path = f"{tmp_path}/podman.sock"
    service = subprocess.Popen(
        [*podman_engine.command, "system", "service", "-t", "0", f"unix://{path}"],
        env={**os.environ, **podman_engine.environ},
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_for_socket(path, service)
        hosts = dict.fromkeys(("CONTAINER_HOST", "DOCKER_HOST"), f"unix://{path}")
        found = ask(**hosts)["capabilities"]
    finally:
        service.terminate()
        service.wait(30)
    assert found["podman"]["state"] == "usable", found["podman"]
    assert found["podman"]["details"]["version"]
    assert "podman serves" in found["docker"]["reason"]


def test_the_verb(tmp_path: Path) -> None:
    """`duende platform` says the same as `python -m duende.platform`."""
    command = shutil.which("duende", path=str(Path(sys.executable).parent))
    if command is None:
        missing("duende is not installed beside this Python")
    done = subprocess.run(
        [str(command), "platform", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=True,
    )
    verb, module = json.loads(done.stdout), ask()
    for key in ("platform", "container", "virtual_machine", "evidence"):
        assert verb[key] == module[key]
