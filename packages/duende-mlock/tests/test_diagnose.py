"""The diagnosis, and the command that prints it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.mlock.diagnose import Facts, judge
from duende.mlock.limits import SETS
from duende.mlock.remedies import PLACES, remedies_for

from .child import SOURCE, linux, run

MIB = 1024 * 1024


def facts(**changes: object) -> Facts:
    """These are the facts of an ordinary login, changed."""
    usual: dict[str, object] = {
        "platform": "linux",
        "kernel": "6.1.0",
        "uid": 1000,
        "soft": 8 * MIB,
        "hard": 8 * MIB,
        "capability_sets": ("CapBnd",),
        "needed": 20 * MIB,
    }
    return Facts(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "can", "text"),
    [
        ({}, False, "20.0 MiB are needed, the limit is 8.0 MiB"),
        ({"capability_sets": SETS}, True, "without limit"),
        ({"soft": None, "hard": None}, True, "without limit"),
        ({"soft": 0, "hard": None}, True, "once the soft limit is raised"),
        ({"soft": 0, "hard": 0}, False, "the limit is 0 (EPERM)"),
        ({"hard": 64 * MIB}, True, "later allocations fail"),
        ({"platform": "darwin"}, False, "darwin can't lock a whole process"),
    ],
)
def test_verdicts(changes: dict[str, object], can: bool, text: str) -> None:
    """Limit and capability together decide, and the numbers are in the sentence."""
    found = judge(facts(**changes))
    assert found.can_lock is can
    assert text in found.verdict


@pytest.mark.parametrize("place", PLACES)
def test_the_place_where_we_are_comes_first(place: str) -> None:
    """All remedies are there, that one first."""
    found = judge(facts(place=place))
    assert found.remedies[0].place == place
    assert sorted(each.place for each in found.remedies) == sorted(PLACES)


def test_each_remedy_has_its_exact_line() -> None:
    """The lines that each place understands."""
    lines = {each.place: "\n".join(each.lines) for each in remedies_for("", "/a b/py")}
    assert "LimitMEMLOCK=infinity\nAmbientCapabilities=CAP_IPC_LOCK" in lines["systemd"]
    for place in ("docker", "podman"):
        assert f"{place} run --cap-add=IPC_LOCK --ulimit memlock=-1:-1" in lines[place]
    assert "cap_add: [IPC_LOCK]" in lines["compose"]
    assert 'add: ["IPC_LOCK"]' in lines["kubernetes"]
    assert lines["setcap"] == "setcap cap_ipc_lock=ep '/a b/py'"
    assert "hard memlock unlimited" in lines["limits.conf"]


LIMITS = st.none() | st.integers(0, 2**40)


@given(
    soft=LIMITS,
    hard=LIMITS,
    needed=LIMITS,
    sets=st.lists(st.sampled_from(SETS), unique=True).map(tuple),
    kernel=st.text(),
)
def test_a_verdict_is_always_given(
    soft: int | None,
    hard: int | None,
    needed: int | None,
    sets: tuple[str, ...],
    kernel: str,
) -> None:
    """With the capability it always works; where it doesn't, there are remedies."""
    found = judge(
        facts(soft=soft, hard=hard, needed=needed, capability_sets=sets, kernel=kernel)
    )
    assert found.can_lock or ("CapEff" not in sets and found.remedies)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """This runs `python -m duende.mlock`."""
    return subprocess.run(
        [sys.executable, "-m", "duende.mlock", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@linux
@pytest.mark.real
@pytest.mark.usefixtures("capability")
def test_the_command_tests_for_real() -> None:
    """`test` locks a process of its own, and diagnosis and test agree."""
    tested = command("test", "-o", "json")
    assert tested.returncode == 0, tested.stderr
    found = json.loads(tested.stdout)
    assert found["state"] == "locked"
    assert found["bytes_locked"] > MIB
    assert command("diagnose").returncode == 0
    assert "locked: " in command("test", "--onfault").stdout


@linux
@pytest.mark.real
def test_status_of_this_and_of_another_process() -> None:
    """What the kernel says about a pid, for people and for programs."""
    found = json.loads(command("status", "-o", "json").stdout)
    assert found["locked_bytes"] == 0
    assert found["resident_bytes"] > MIB
    assert {"limit_soft", "limit_hard", "has_ipc_lock"} <= set(found)
    other = json.loads(command("status", str(os.getpid()), "-o", "json").stdout)
    assert other["pid"] == os.getpid()
    assert f"process {os.getpid()}" in command("status", str(os.getpid())).stdout


@linux
@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["status", "999999999"], 3, "there is no process 999999999"),
        (["status", "x"], 2, "'x' is no pid"),
        (["lock"], 2, "invalid choice"),
        ([], 2, "required"),
        (["diagnose", "-o", "yaml"], 2, "invalid choice"),
    ],
)
def test_wrong_usage_is_one_clear_error(words: list[str], code: int, text: str) -> None:
    """No traceback, and the exit code says which kind it is."""
    done = command(*words)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@linux
@pytest.mark.real
def test_an_ordinary_user_is_told_what_mends_it() -> None:
    """Without the right the test fails, as the diagnosis foretells."""
    told = run("""
import contextlib, io
from duende.mlock._cli import _parser, main
_parser().parse_args(["test"])  # another user may not see the standard library
limit(65536); drop()
def output(*words):
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        return main(words), stream.getvalue()
tell(test=output("test"), diagnosis=output("diagnose"),
     data=json.loads(output("diagnose", "-o", "json")[1]))
""")
    code, text = told["test"]
    assert (code, text[:12]) == (1, "not locked: ")
    code, text = told["diagnosis"]
    assert (code, text[:22]) == (1, "memory can't be locked")
    assert "LimitMEMLOCK=infinity" in text
    assert told["data"]["can_lock"] is False
    assert told["data"]["forecast"]["fits"] is False
    assert len(told["data"]["remedies"]) == len(PLACES)
