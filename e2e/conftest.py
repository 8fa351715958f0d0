from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .project import Project


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:
    """This lets the fixture know whether the test has failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
        project = getattr(item, "funcargs", {}).get("project")
        if isinstance(project, Project):
            report.sections.append(("the project", project.diagnosis()))


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def project(request: pytest.FixtureRequest) -> Iterator[Project]:
    """This is a project that leaves nothing behind."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    found = Project()
    if not Path(found.command).exists():
        pytest.fail(f"{found.command} is not installed; pip install 'duende-core[cli]'")
    try:
        yield found
        if request.node.stash.get(FAILED, False):
            # It has its own reason already; what it left is only cleared away.
            found.end_commands()
            found.run("down")
        else:
            found.finish()
    finally:
        found.end_commands()
        found.kill_all()
        found.remove()


@pytest.fixture
def program() -> Callable[[str], str]:
    """This finds a program, or skips the test; in CI nothing may be missing."""

    def find(name: str) -> str:
        places = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
        places += [str(p) for p in Path("/usr/lib/postgresql").glob("*/bin")]
        found = shutil.which(name, path=os.pathsep.join(places))
        if found is None:
            missing(f"{name} is not installed")
        return str(found)

    return find


@pytest.fixture
def root_only() -> None:
    """This skips the test without root's rights."""
    if os.geteuid() != 0:
        missing("needs root")


def missing(reason: str) -> None:
    """This skips with a reason that is counted, or fails in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI has to have it")
    pytest.skip(reason)
