"""The package as its users import it."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import typing

import pytest

import duende
import duende.core
from duende.core import errors

_EVERYTHING_LAZY = """
import sys
import duende.core
loaded = {name for name in sys.modules if name.startswith("duende.")}
assert loaded == {"duende.core"}, loaded
heavy = {"anyio", "asyncio", "attr", "cattrs", "click", "h11", "psutil", "importlib"}
print(" ".join(sorted(heavy & set(sys.modules))))
"""


def test_import_loads_no_submodule() -> None:
    """A bare `import duende.core` costs nothing but itself."""
    result = subprocess.run(
        [sys.executable, "-c", _EVERYTHING_LAZY],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert set(result.stdout.split()) <= {"importlib"}


@pytest.mark.parametrize("name", duende.core.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """What `__all__` promises can be had, and is what its home module calls so."""
    value = getattr(duende.core, name)
    assert getattr(value, "__name__", name) == name


def test_all_is_a_sorted_tuple() -> None:
    """`__all__` is a tuple without doubles, and `dir()` shows all of it."""
    assert isinstance(duende.core.__all__, tuple)
    assert len(set(duende.core.__all__)) == len(duende.core.__all__)
    assert set(duende.core.__all__) <= set(dir(duende.core))


def test_every_error_is_public() -> None:
    """The whole tree of errors is exported."""
    assert set(errors.__all__) <= set(duende.core.__all__)


def test_type_checkers_see_what_is_exported() -> None:
    """The names under TYPE_CHECKING are the names of `__all__`."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(duende.core))
    [block] = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    declared = {
        alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == set(duende.core.__all__)


def test_unknown_attribute() -> None:
    """A name that is not there is an AttributeError that names it."""
    with pytest.raises(AttributeError, match="Demon"):
        typing.cast(typing.Any, duende.core).Demon  # noqa: B018


def test_no_portion_owns_the_namespace() -> None:
    """`duende` is shared by six distributions (PEP 420): it must have no file."""
    assert getattr(duende, "__file__", None) is None


def test_every_module_imports() -> None:
    """No module of the package is broken, whatever its importers do."""
    names = [
        module.name
        for module in pkgutil.walk_packages(duende.core.__path__, "duende.core.")
        if not module.name.endswith("__main__")
    ]
    assert "duende.core.errors" in names
    for name in names:
        importlib.import_module(name)
