"""Fixtures of the keeper's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with a running keeper and an attached connection."""
    project = Project(tmp_path)
    project.start()
    yield project
    project.close()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Project]:
    """A project whose keeper the test starts by itself."""
    project = Project(tmp_path)
    yield project
    project.close()
