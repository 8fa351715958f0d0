"""The examples, run as their README says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import missing
from .engines import podman
from .project import Project, until

pytestmark = [pytest.mark.e2e, pytest.mark.real]

EXAMPLES = Path(__file__).parents[1] / "examples"
WHERE = EXAMPLES / "where-am-i" / "where.py"


def locked(pid: int) -> int:
    """This is what the kernel says is locked of a process, in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmLck:"):
            return int(line.split()[1])
    raise AssertionError("there is no VmLck line")


@pytest.mark.usefixtures("root_only")
def test_memory_locking(project: Project) -> None:
    """One vault is locked as a whole, the other has locked its key's page alone."""
    shutil.copy(EXAMPLES / "memory-locking" / "vault.py", project.root)
    project.write((EXAMPLES / "memory-locking" / "duende.toml").read_text())
    project.up()

    def both_have_spoken() -> bool:
        logs = (project.log(name) for name in ("vault", "open-vault"))
        return all(any("locked: " in line for line in log) for log in logs)

    until(both_have_spoken, "both vaults have logged what is locked")
    assert locked(project.pid("vault")) > 4096
    assert 0 < locked(project.pid("open-vault")) < 256


def test_where_am_i_here() -> None:
    """It says something about every engine, and at least one worker fits."""
    done = subprocess.run(
        [sys.executable, str(WHERE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "docker: " in done.stdout
    assert "fit here: 0" not in done.stdout


@pytest.mark.podman
def test_where_am_i_in_a_small_container() -> None:
    """It counts with the container's limits, not the machine's."""
    if not WHERE.exists():
        missing("the examples are not in this checkout")
    with podman() as engine:
        said = engine.run(("--memory=64m", "--cpus=0.5"), sys.executable, str(WHERE))
    assert "container, " in said
    assert "in podman" in said
    assert "fit here: 1\n" in said
