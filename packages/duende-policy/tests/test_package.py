"""The package as its users import it."""

from __future__ import annotations

import duende
import duende.policy


def test_all_is_real() -> None:
    """`__all__` is a sorted tuple, and each name in it can be had."""
    names = duende.policy.__all__
    assert isinstance(names, tuple)
    assert sorted(names) == list(names)
    for name in names:
        assert name in dir(duende.policy)
        assert name == getattr(duende.policy, name).__name__


def test_no_portion_owns_the_namespace() -> None:
    """`duende` is shared by six distributions (PEP 420): it must have no file."""
    assert getattr(duende, "__file__", None) is None
