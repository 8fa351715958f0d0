"""The tree of errors: one root, texts that help, and a way through pickle."""

from __future__ import annotations

import pickle

import pytest

from duende.core import errors
from duende.core.errors import ConfigError, DaemonError, SpawnError

EVERY = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_survives_pickling(kind: type[DaemonError]) -> None:
    """Class, text and fields come back as they were."""
    error = kind("it was found", "do this")
    again = pickle.loads(pickle.dumps(error))
    assert kind is type(again)
    assert "it was found; do this" == str(again)
    assert vars(error) == vars(again)
    assert isinstance(again, DaemonError)


def test_fields_of_subclasses_survive_pickling() -> None:
    """Problems, errno and step are fields, not text alone."""
    config = pickle.loads(pickle.dumps(ConfigError("x", "", ("a: wrong", "b: wrong"))))
    assert ("a: wrong", "b: wrong") == config.problems
    assert "a: wrong\nb: wrong" == str(config)
    spawn = pickle.loads(pickle.dumps(SpawnError("x", errno=2, step="cwd")))
    assert (2, "cwd") == (spawn.errno, spawn.step)
