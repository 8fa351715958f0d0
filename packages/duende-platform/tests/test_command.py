"""The command `python -m duende.platform`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.real


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """This runs the command."""
    return subprocess.run(
        [sys.executable, "-m", "duende.platform", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )


def test_for_programs() -> None:
    """One JSON object with the report, the limits and the capabilities."""
    done = run("-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert {"platform", "confidence", "container", "virtual_machine", "pod"} < set(
        found
    )
    assert {"evidence", "contradictions", "limits", "capabilities"} < set(found)
    assert found["limits"]["memory_available"] > 0
    assert set(found["capabilities"]["docker"]) == {
        "name",
        "state",
        "reason",
        "mend",
        "details",
    }


def test_for_people() -> None:
    """The same, in lines; what was not asked for is left out."""
    done = run("--no-capabilities", DUENDE_PLATFORM="container")
    assert done.returncode == 0
    assert done.stdout.startswith("platform: container, as DUENDE_PLATFORM says\n")
    assert "memory available: " in done.stdout
    assert "docker" not in done.stdout.split("memory available")[1]


@pytest.mark.parametrize(
    ("arguments", "environ", "code"),
    [(["-o", "xml"], {}, 2), (["now"], {}, 2), ([], {"DUENDE_PLATFORM": "x"}, 1)],
)
def test_what_it_cannot_do(
    arguments: list[str], environ: dict[str, str], code: int
) -> None:
    """One message, no traceback."""
    done = run(*arguments, **environ)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    assert done.stderr


@pytest.mark.parametrize("where", ["| true", ">&-", ">/dev/null"])
def test_where_nobody_reads(where: str) -> None:
    """A pipe that was closed, or no output at all, is no traceback."""
    command = f"{sys.executable} -m duende.platform --no-capabilities {where}"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""


def test_a_terminal_that_knows_ascii_only() -> None:
    """What it can't show is escaped."""
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = run("--no-capabilities", **plain, container="pódman")
    assert done.returncode == 0
    assert r"container=p\xf3dman" in done.stdout
