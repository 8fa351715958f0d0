"""The JSON Schema of duende.toml."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest

from duende.core.config.schema import json_schema

from .samples import BAD, GOOD

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema() -> None:
    """The schema is valid Draft 2020-12, and JSON."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("name", GOOD)
def test_good_files(name: str) -> None:
    """What the loader takes, the schema takes."""
    document = json.loads(json.dumps(tomllib.loads(GOOD[name]), default=str))
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str) -> None:
    """What the loader refuses, the schema refuses, as far as a schema can."""
    text, _, visible = BAD[name]
    assert VALIDATOR.is_valid(tomllib.loads(text)) is not visible


def test_defaults_are_shown_as_one_would_write_them() -> None:
    """An editor shows the default of each key in the file's own units."""
    definitions = SCHEMA["$defs"]
    assert definitions["StopConfig"]["properties"]["timeout"]["default"] == "10s"
    assert definitions["LogConfig"]["properties"]["max_size"]["default"] == "10MiB"
    assert definitions["BackoffConfig"]["properties"]["max"]["default"] == "1m"
    assert definitions["RestartConfig"]["properties"]["policy"]["default"] == (
        "on-failure"
    )
    resources = definitions["ResourcesConfig"]["properties"]
    assert resources["lock_memory"]["default"] is False


@pytest.mark.parametrize("defaults", [None, {"command": "x"}, {"restart": "always"}])
def test_a_program_may_come_from_the_defaults(
    defaults: dict[str, str] | None,
) -> None:
    """A daemon needs a program of its own unless [defaults] has one."""
    document: dict[str, object] = {"daemon": {"a": {}}}
    if defaults is not None:
        document["defaults"] = defaults
    assert VALIDATOR.is_valid(document) is (defaults == {"command": "x"})
