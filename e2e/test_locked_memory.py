"""`lock_memory`: the kernel says whether the daemon's memory is locked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import missing
from .project import Project, until

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.usefixtures("root_only")]

WORKER = """
async def work(ctx):
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    print("uid", status["Uid"].split()[0], "locked", status["VmLck"].split()[0],
          "kB, may", int(status["CapEff"], 16), flush=True)
    await ctx.wait_shutdown()
"""
MODULES = "anyio attr attrs idna sniffio typing_extensions".split()
PORTIONS = "core mlock platform policy".split()
CAP_IPC_LOCK = 1 << 14


def write(project: Project, more: str) -> None:
    """This is a project with one Python daemon."""
    (project.root / "worker.py").write_text(WORKER)
    project.write(f'[daemon.worker]\nentry = "worker:work"\nrestart = "never"\n{more}')


def said(project: Project) -> tuple[int, int, int]:
    """This waits for what the daemon says: its user, kB locked, its capabilities."""

    def look() -> str | None:
        return next((line for line in project.log("worker") if "locked" in line), None)

    words = until(look, "the worker has spoken").split()
    at = words.index("uid")
    return int(words[at + 1]), int(words[at + 3]), int(words[at + 6])


@pytest.mark.parametrize(
    ("declared", "variable", "is_locked"),
    [
        ("true", None, True),
        ('"required"', None, True),
        ("false", None, False),
        ('"required"', "off", False),
        ("false", "try", True),
    ],
)
def test_it_is_locked_as_declared(
    project: Project, declared: str, variable: str | None, is_locked: bool
) -> None:
    """DUENDE_MLOCK of the supervisor overrides what the file says."""
    write(project, f"resources.lock_memory = {declared}\n")
    if variable is not None:
        project.env["DUENDE_MLOCK"] = variable
    project.up()
    _, locked, _ = said(project)
    assert (locked > 1024) is is_locked


def test_the_daemons_own_variable_wins(project: Project) -> None:
    """What its env says goes before the supervisor's."""
    write(project, 'resources.lock_memory = true\nenv = { DUENDE_MLOCK = "off" }\n')
    project.env["DUENDE_MLOCK"] = "required"
    project.up()
    assert said(project)[1] == 0


def readable_modules(folder: Path) -> Path:
    """This copies what a daemon imports to where another user can read it."""
    code = (
        "import importlib.util, json, sys\n"
        "found = [importlib.util.find_spec(name) for name in sys.argv[1:]]\n"
        "print(json.dumps([each and each.origin for each in found]))\n"
    )
    names = [*MODULES, *(f"duende.{name}" for name in PORTIONS)]
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    target = folder / "modules"
    for name, origin in zip(names, json.loads(done.stdout), strict=True):
        if origin is None:
            continue
        source, place = Path(origin), target / name.replace(".", "/")
        if source.name == "__init__.py":
            shutil.copytree(source.parent, place)
        else:
            shutil.copy(source, target)
    return target


def test_another_user_can_lock(project: Project) -> None:
    """With `user` the daemon gets CAP_IPC_LOCK, that one alone, and locks."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    if python is None or subprocess.run([python, "-c", code], check=False).returncode:
        missing("a Python 3.11 that every user can run is not installed")
    modules = readable_modules(project.root)
    write(
        project,
        f'user = "nobody"\npython = "{python}"\n'
        f'env = {{ PYTHONPATH = "{modules}" }}\n'
        'resources.lock_memory = "required"\n',
    )
    project.up()
    user, locked, capabilities = said(project)
    assert user != os.geteuid()
    assert locked > 1024
    assert capabilities == CAP_IPC_LOCK


def test_required_that_cannot_be_had(project: Project) -> None:
    """The daemon is not started again and again; it says what to do."""
    program = project.root / "weak-python"
    program.write_text(
        "#!/bin/sh\nulimit -l 64\n"
        f'exec setpriv --inh-caps=-ipc_lock --bounding-set=-ipc_lock {sys.executable} "$@"\n'
    )
    program.chmod(0o755)
    write(project, f'python = "{program}"\nresources.lock_memory = "required"\n')
    result = project.run("up", "-d")
    assert result.code == 1
    row = project.is_in("worker", "failed")
    assert row["exit"]["code"] == 78
    assert row["restarts"] == 0
    log = "\n".join(project.log("worker"))
    assert "lock_memory is required" in log
    assert "python -m duende.mlock diagnose" in log
    assert "Traceback" not in log
