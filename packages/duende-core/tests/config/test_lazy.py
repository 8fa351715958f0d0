"""The package's own lazy names."""

from __future__ import annotations

import pytest

import duende.core.config as config


@pytest.mark.parametrize("name", config.__all__)
def test_every_name_is_there(name: str) -> None:
    """What `__all__` promises can be had, and `dir()` shows it."""
    assert getattr(config, name).__name__ == name
    assert name in dir(config)


def test_unknown_names() -> None:
    """A name that is not there is an AttributeError that names it."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        config.nothing  # noqa: B018 - the access is what is tested
