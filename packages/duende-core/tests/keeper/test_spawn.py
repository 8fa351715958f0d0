"""Starting processes: what a daemon finds, and every way in which it can fail."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from duende.core.keeper_client import KeeperRefused

from .helpers import Project, is_alive, zombies_of

pytestmark = pytest.mark.real

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sets user ids")

REPORT = """
import os, resource, signal
status = open("/proc/self/status").read()
ignored = int(status.split("SigIgn:")[1].split()[0], 16)
print("ignored", [n for n in range(1, 65) if ignored >> n - 1 & 1 and n not in (32, 33)])
print("blocked", [l.split()[1] for l in status.splitlines() if l.startswith("SigBlk")])
print("fds", sorted(os.listdir("/proc/self/fd")))
print("cwd", os.getcwd())
print("umask", oct(os.umask(0)))
print("session", os.getsid(0) == os.getpid())
print("nofile", resource.getrlimit(resource.RLIMIT_NOFILE))
print("ids", os.getresuid(), os.getresgid(), sorted(os.getgroups()))
print("nice", os.getpriority(os.PRIO_PROCESS, 0))
print("stdin", os.readlink("/proc/self/fd/0"))
print("notify", os.environ["NOTIFY_SOCKET"])
own = os.environ.get("WATCHDOG_PID") == str(os.getpid())
print("watchdog", os.environ.get("WATCHDOG_USEC"), own)
print("names", *sorted(os.environ))
"""


def report_of(project: Project, **fields: Any) -> dict[str, str]:
    """This runs a daemon that prints what it finds, and reads that."""
    project.python("report", REPORT, **fields)
    exited = project.wait("exit", "report")
    text = project.log_text("report")
    assert exited["code"] == 0, text
    return dict(line.split(" ", 1) for line in text.splitlines())


# Python itself ignores these; 32 and 33 belong to the C library (signal(7)).
PYTHONS_OWN = str([signal.SIGPIPE.value, signal.SIGXFSZ.value])


@pytest.mark.parametrize("slow", [False, True], ids=["posix_spawn", "fork"])
def test_a_daemon_finds_a_clean_world(project: Project, slow: bool) -> None:
    """Signals, fds, session, limits and environment are as promised, both ways."""
    soft_and_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fields: dict[str, Any] = {"watchdog": 1_000_000} if slow else {}
    found = report_of(project, cwd="/usr", umask=0o027, **fields)
    assert found["ignored"] == PYTHONS_OWN
    assert found["blocked"] == "['0000000000000000']"
    assert found["fds"] == "['0', '1', '2', '3']"  # 3 is the listing itself
    assert found["cwd"] == "/usr"
    assert found["umask"] == "0o27"
    assert found["session"] == "True"
    assert found["nofile"] == str(soft_and_hard)
    assert found["stdin"] == "/dev/null"
    assert found["notify"].endswith("/report")
    assert found["watchdog"] == ("1000000 True" if slow else "None False")
    expected = {"DUENDE_KEEPER_TEST", "DUENDE_RUN_ID", "NOTIFY_SOCKET", "PATH"}
    expected |= {"WATCHDOG_PID", "WATCHDOG_USEC"} if slow else set()
    # Python sets LC_CTYPE for itself in the C locale (PEP 538).
    assert set(found["names"].split()) - {"LC_CTYPE"} == expected


IDS = 'id -u; id -g; id -G; nice; grep -c "" /proc/self/status > /dev/null'


def ids_of(project: Project, **fields: Any) -> list[str]:
    """This runs a shell that prints its ids and niceness."""
    project.shell("ids", IDS, **fields)
    assert project.wait("exit", "ids")["code"] == 0
    return project.log_text("ids").splitlines()


@root_only
def test_ids_are_set_and_all_of_root_is_gone(project: Project) -> None:
    """User, group and supplementary groups are exactly those asked for."""
    found = ids_of(project, uid=1234, gid=1235, groups=[1236, 1237], nice=5)
    assert found == ["1234", "1235", "1235 1236 1237", "5"]


@root_only
def test_a_user_without_groups_keeps_none_of_roots(project: Project) -> None:
    """Root's supplementary groups are not inherited with a user alone."""
    found = ids_of(project, uid=1234, gid=1235)
    assert found == ["1234", "1235", "1235", "0"]


CAPABILITIES = "grep ^Cap /proc/self/status"
IPC_LOCK = 14


def capabilities_of(project: Project, **fields: Any) -> dict[str, int]:
    """This runs a program that prints the capabilities it has after its exec."""
    project.shell("capabilities", CAPABILITIES, **fields)
    assert project.wait("exit", "capabilities")["code"] == 0
    lines = project.log_text("capabilities").splitlines()
    return {key: int(value, 16) for key, value in map(str.split, lines)}


@root_only
def test_another_user_keeps_only_the_capabilities_that_were_named(
    project: Project,
) -> None:
    """CAP_IPC_LOCK survives the change of user and the exec, and nothing beside it."""
    found = capabilities_of(project, uid=1234, gid=1235, capabilities=[IPC_LOCK])
    for kind in ("CapPrm:", "CapEff:", "CapAmb:", "CapInh:"):
        assert found[kind] == 1 << IPC_LOCK, kind


@root_only
def test_another_user_has_no_capability_otherwise(project: Project) -> None:
    """Without a name, all of root's power is gone."""
    found = capabilities_of(project, uid=1234, gid=1235)
    assert (found["CapPrm:"], found["CapEff:"], found["CapAmb:"]) == (0, 0, 0)


@root_only
def test_a_capability_that_the_keeper_lacks_is_not_granted(project: Project) -> None:
    """Nothing can be passed on that isn't there; the daemon starts without it."""
    found = capabilities_of(project, uid=1234, gid=1235, capabilities=[63])
    assert found["CapEff:"] == 0


def test_limits_are_set(project: Project) -> None:
    """A limit lower than ours holds in the daemon."""
    found = report_of(project, limits={"nofile": [100, 200]})
    assert found["nofile"] == "(100, 200)"


def failure(project: Project, argv: list[str], **fields: Any) -> tuple[str, int]:
    """This starts what can't start, and gives the step and errno."""
    request = project.spec("bad", argv, **fields)
    project.request(**request)
    failed = project.wait("spawn-failed", "bad", run=request["run"])
    assert failed["text"]
    assert zombies_of(project.pid) == []
    return failed["step"], failed["errno"]


@pytest.mark.parametrize("slow", [False, True], ids=["posix_spawn", "fork"])
def test_what_cannot_be_executed_is_told_apart(
    project: Project, tmp_path: Path, slow: bool
) -> None:
    """A failed exec is an event with its errno, never an exit code."""
    fields: dict[str, Any] = {"watchdog": 1} if slow else {}
    plain = tmp_path / "plain"
    plain.write_text("echo no interpreter line\n")
    assert failure(project, [str(plain)], **fields) == ("exec", errno.EACCES)
    plain.chmod(0o755)
    assert failure(project, [str(plain)], **fields) == ("exec", errno.ENOEXEC)
    plain.write_text("#!/nowhere/interpreter\n")
    assert failure(project, [str(plain)], **fields) == ("exec", errno.ENOENT)
    assert failure(project, [str(tmp_path)], **fields) == ("exec", errno.EACCES)
    assert failure(project, ["/nowhere"], **fields) == ("exec", errno.ENOENT)
    huge = ["/bin/true", "x" * 200_000]
    assert failure(project, huge, **fields) == ("exec", errno.E2BIG)
    nul = ["/bin/true", "a\0b"]
    assert failure(project, nul, **fields) == ("exec", errno.EINVAL)


@pytest.mark.parametrize("slow", [False, True], ids=["posix_spawn", "fork"])
def test_a_missing_folder_is_its_own_step(project: Project, slow: bool) -> None:
    """A missing working directory isn't mistaken for a missing program."""
    fields: dict[str, Any] = {"watchdog": 1} if slow else {}
    found = failure(project, ["/bin/true"], cwd="/nowhere", **fields)
    assert found == ("cwd", errno.ENOENT)


def test_each_step_of_the_slow_way_is_named(project: Project) -> None:
    """What fails between fork and exec says where."""
    true = ["/bin/true"]
    step, _ = failure(project, true, limits={"nofile": [1 << 40, 1 << 40]})
    assert step == "limits"
    step, _ = failure(project, true, limits={"nonsense": [1, 1]})
    assert step == "limits"
    if os.geteuid() != 0:
        assert failure(project, true, uid=0) == ("uid", errno.EPERM)
        assert failure(project, true, groups=[1]) == ("groups", errno.EPERM)
        assert failure(project, true, nice=-5)[0] == "nice"


def test_a_log_that_is_no_file_is_refused(project: Project, tmp_path: Path) -> None:
    """Symbolic links, FIFOs and devices in the log's place are not written to."""
    target = tmp_path / "target"
    target.write_text("precious")
    link = tmp_path / "link.log"
    link.symlink_to(target)
    true = ["/bin/true"]
    assert failure(project, true, log={"path": str(link)}) == ("log", errno.ELOOP)
    fifo = tmp_path / "fifo.log"
    os.mkfifo(fifo)
    assert failure(project, true, log={"path": str(fifo)})[0] == "log"
    assert failure(project, true, log={"path": "/dev/null"})[0] == "log"
    assert target.read_text() == "precious"


def test_a_living_daemon_is_not_started_twice(project: Project) -> None:
    """The slot is busy until its process, and what that left, is gone."""
    first = project.shell("one", "sleep 60")
    with pytest.raises(KeeperRefused) as refused:
        project.shell("one", "sleep 60")
    assert refused.value.reason == "busy"
    assert is_alive(first["pid"])


def test_a_command_for_an_old_run_is_stale(project: Project) -> None:
    """A signal meant for the run before does not hit this one."""
    project.shell("one", "exit 0", run="first")
    project.wait("exit", "one")
    project.shell("one", "sleep 60", run="second")
    with pytest.raises(KeeperRefused) as refused:
        project.request("signal", name="one", run="first", sig=9, scope="tree")
    assert refused.value.reason == "stale"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "é", "x" * 100, 7])
def test_a_name_cannot_leave_its_folder(project: Project, name: Any) -> None:
    """A name is a file name of ours, or it is refused."""
    with pytest.raises(KeeperRefused):
        project.request(**{**project.spec("good", ["/bin/true"]), "name": name})


def test_exits_are_true(project: Project) -> None:
    """Codes, signals and core dumps come as they were."""
    project.shell("code", "exit 37")
    assert project.wait("exit", "code")["code"] == 37
    project.shell("signal", "kill -TERM $$")
    exited = project.wait("exit", "signal")
    assert (exited["code"], exited["signal"]) == (None, 15)
    project.shell("core", "ulimit -c 0; kill -SEGV $$")
    assert project.wait("exit", "core")["signal"] == 11


def test_many_starts_leave_nothing(project: Project) -> None:
    """A burst of starts ends with as many exits, no zombie and no leaked fd."""
    project.shell("first", "exit 0", log=None)  # opens what is opened once
    project.wait("exit", "first")
    project.request("forget", name="first")
    before = len(os.listdir(f"/proc/{project.pid}/fd"))
    for number in range(300):
        project.connection.send(
            project.spec(f"d{number}", ["/bin/true"], log=None, run=f"r{number}")
        )
    for number in range(300):
        assert project.wait("exit", f"d{number}")["code"] == 0
    for number in range(300):
        project.request("forget", name=f"d{number}")
    assert zombies_of(project.pid) == []
    assert len(os.listdir(f"/proc/{project.pid}/fd")) == before


def test_stops_and_continues_are_told(project: Project) -> None:
    """A stop signal from outside is an event, and so is its end."""
    pid = project.shell("one", "exec sleep 60")["pid"]
    project.request("signal", name="one", sig=19, scope="tree")
    project.wait("stopped", "one", pid=pid)
    assert project.connect_and_peek()["one"]["paused"]
    project.request("signal", name="one", sig=18, scope="tree")
    project.wait("continued", "one", pid=pid)
