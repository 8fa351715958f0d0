"""The configuration as JSON and back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given

from duende.core.config.codec import config_from_json, config_to_json
from duende.core.config.model import ProjectConfig
from duende.core.errors import ConfigError

from .strategies import PROJECTS


@given(PROJECTS)
def test_round_trip(config: ProjectConfig) -> None:
    """Every configuration comes back exactly, through JSON text."""
    rendered = json.loads(json.dumps(config_to_json(config, "/x/duende.toml", "12ab")))
    assert config_from_json(rendered) == config
    assert (rendered["file"], rendered["sha256"]) == ("/x/duende.toml", "12ab")


def test_defaults_are_left_out() -> None:
    """What is as it is by default costs no byte."""
    assert config_to_json(ProjectConfig(), "f", "s") == {
        "format": 1,
        "file": "f",
        "sha256": "s",
        "supervisor": {},
        "daemons": {},
        "groups": {},
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "format"),
        ({"format": 2}, "format"),
        ({"format": 1}, "damaged"),
        ({"format": 1, "supervisor": {}, "daemons": [], "groups": {}}, "damaged"),
        ({"format": 1, "supervisor": {"x": 1}, "daemons": {}, "groups": {}}, "damaged"),
        (
            {"format": 1, "supervisor": {}, "groups": {}, "daemons": {"a": {}}},
            "damaged",
        ),
    ],
    ids=["empty", "newer", "cut", "list", "unknown", "nameless"],
)
def test_damaged(data: dict[str, object], message: str) -> None:
    """A record of another format, or a damaged one, is refused in one message."""
    with pytest.raises(ConfigError, match=message):
        config_from_json(data)


def test_it_imports_no_cattrs() -> None:
    """A control plane that takes over doesn't pay for reading files."""
    program = (
        "import sys, duende.core.config.codec;"
        "print({'cattrs', 'tomllib', 'difflib'} & set(sys.modules))"
    )
    shown = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert shown.strip() == "set()"
