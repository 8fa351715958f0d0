"""From text, class or function to a Daemon class, and every way to get it wrong."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duende.core._target import create_daemon, load_target
from duende.core.daemon import Daemon
from duende.core.errors import ConfigError

MODULE = """
from duende.core import Daemon
import abc

class Good(Daemon):
    async def run(self, ctx):
        return None

class Unfinished(Daemon):
    pass

class NoDaemon:
    async def run(self, ctx):
        return None

class Blocking(Daemon):
    def run(self, ctx):
        return None

class Generator(Daemon):
    async def run(self, ctx):
        yield

class Outer:
    class Inner(Good):
        pass

async def worker(ctx):
    return None

async def alone():
    return None

async def greedy(a, b):
    return None

def plain(ctx):
    return None

made = Good()
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with one module, first on the path."""
    (tmp_path / "sample_target.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith(("duende.", "cattrs", "attr")):
            del sys.modules[name]


def failure(target: object) -> str:
    """This gives the text of the error that a target must get."""
    with pytest.raises(ConfigError) as caught:
        load_target(target)
    return str(caught.value)


@pytest.mark.parametrize("attribute", ["Good", "Outer.Inner"])
def test_module_and_class(folder: Path, attribute: str) -> None:
    """A class is found by module and by dotted attribute."""
    kind = load_target(f"sample_target:{attribute}")
    assert issubclass(kind, Daemon)
    assert kind.__qualname__ == attribute


def test_path_and_class(folder: Path) -> None:
    """A file is found by its path; twice is the same class; siblings import."""
    (folder / "sub").mkdir()
    (folder / "sub" / "beside_it.py").write_text("VALUE = 1\n")
    (folder / "sub" / "by_path.py").write_text("import beside_it\n" + MODULE)
    kind = load_target("sub/by_path.py:Good")
    assert kind.__module__ == "by_path"
    assert load_target("sub/by_path.py:Good") is kind


def test_a_path_never_hides_an_imported_module(folder: Path) -> None:
    """A file called like a loaded module gets another name."""
    (folder / "json.py").write_text(MODULE)
    import json

    load_target("./json.py:Good")
    assert sys.modules["json"] is json


@pytest.mark.parametrize("name", ["worker", "alone"])
def test_async_functions_are_daemons(folder: Path, name: str) -> None:
    """An async function, with the context or nothing, becomes a class."""
    kind = load_target(f"sample_target:{name}")
    assert create_daemon(kind).name == name


@pytest.mark.anyio
async def test_a_function_gets_the_context_or_nothing() -> None:
    """What the function returns is what run returns; partials count too."""
    seen: list[object] = []

    async def with_context(ctx: object) -> str:
        seen.append(ctx)
        return "a"

    async def without() -> str:
        return "b"

    async def two(first: int, ctx: object) -> str:
        seen.append(first)
        return "c"

    context: Any = object()
    for function, expected in (
        (with_context, "a"),
        (without, "b"),
        (functools.partial(two, 1), "c"),
    ):
        kind: Any = load_target(function)
        assert await kind().run(context) == expected
    assert seen == [context, 1]
    assert load_target(functools.partial(two, 1)).name == "two"


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("sample_target", ["names no class", "'sample_target:Main'"]),
        ("sample_target:", ["names no class"]),
        (":Good", ["names no class"]),
        ("sampel_target:Good", ["no module 'sampel_target'", "'sample_target'?"]),
        ("nowhere.at.all:Good", ["no module 'nowhere'"]),
        ("sample_target:Goood", ["has no 'Goood'; did you mean 'Good'?"]),
        ("missing/file.py:Good", ["no file 'missing/file.py'"]),
        ("sample_target:NoDaemon", ["is a class, but no Daemon"]),
        ("sample_target:Unfinished", ["is abstract: run is not written"]),
        ("sample_target:Blocking", ["write 'async def run(self, ctx)'"]),
        ("sample_target:Generator", ["no 'yield'"]),
        ("sample_target:plain", ["plain function", "async def"]),
        ("sample_target:greedy", ["needs 2 arguments"]),
        ("sample_target:made", ["is an object of Good", "name its class"]),
        ("sample_target:number", ["is int 7, no daemon"]),
    ],
)
def test_mistakes_are_one_clear_message(
    folder: Path, target: str, parts: list[str]
) -> None:
    """Each mistake says what was found and what to write."""
    text = failure(target)
    for part in parts:
        assert part in text


def test_a_module_that_does_not_import(folder: Path) -> None:
    """The last lines of its traceback are shown, ours and importlib's are not."""
    (folder / "broken_target.py").write_text("def f():\n    return 1 / 0\n\nf()\n")
    text = failure("broken_target:Good")
    assert "module 'broken_target' does not import" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "line 2, in f" in text
    assert "importlib" not in text


def test_a_module_whose_import_is_missing(folder: Path) -> None:
    """Its own missing import is not mistaken for a missing target."""
    (folder / "needy_target.py").write_text("import no_such_module_here\n")
    text = failure("needy_target:Good")
    assert "'needy_target' does not import" in text
    assert "No module named 'no_such_module_here'" in text


@pytest.mark.parametrize("body", ["def (:\n", "raise SystemExit(3)\n"])
def test_a_module_that_breaks_off(folder: Path, body: str) -> None:
    """A syntax error and an exit at import are reported, not obeyed."""
    (folder / "odd_target.py").write_text(body)
    assert "'odd_target' does not import" in failure("odd_target:Good")
    assert "does not import" in failure("odd_target.py:Good")
    assert "odd_target" not in sys.modules


def test_a_class_with_arguments_is_refused() -> None:
    """A daemon is created without arguments, and the message says so."""

    class Needy(Daemon):
        def __init__(self, port: int) -> None:
            self.port = port

        async def run(self, ctx: Any) -> None:
            return None

    with pytest.raises(ConfigError, match=r"without arguments.*'port'"):
        create_daemon(Needy)
