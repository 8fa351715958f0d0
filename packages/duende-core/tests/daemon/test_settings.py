"""A settings table becomes the declared class, strictly and with all problems."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core._settings import settings_class, structure_settings
from duende.core.daemon import Daemon
from duende.core.errors import ConfigError


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@attrs.frozen
class Inner:
    url: str
    weight: int = 1


@attrs.frozen
class Settings:
    every: float = 1.0
    names: list[str] = attrs.Factory(list)
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    colour: Colour = Colour.RED
    ports: dict[str, int] = attrs.Factory(dict)
    loud: bool = False


@dataclass
class Plain:
    size: int = 3


class Base(Daemon):
    async def run(self, ctx: Any) -> None:
        return None


class WithSettings(Base):
    settings: Settings


class Inherits(WithSettings):
    pass


class WithDataclass(Base):
    settings: Plain


class WithDefault(Base):
    settings: Settings = Settings(every=9.0)


class WithTable(Base):
    settings: dict[str, Any]


class Lost(Base):
    settings: NowhereToBeFound  # type: ignore[name-defined]  # noqa: F821


class NotStructured(Base):
    settings: int


def problems(raw: object, kind: type[Daemon] = WithSettings) -> list[str]:
    """This gives the lines of the error that a table must get."""
    with pytest.raises(ConfigError) as caught:
        structure_settings(kind, raw, "daemon.x.settings")
    return str(caught.value).splitlines()


def test_a_table_becomes_the_class() -> None:
    """Nested classes, lists, enums and whole numbers for numbers all work."""
    table = {
        "every": 2,
        "names": ["a"],
        "inner": {"url": "u"},
        "several": [{"url": "v", "weight": 4}],
        "colour": "green",
        "ports": {"http": 80},
    }
    expected = Settings(2.0, ["a"], Inner("u"), (Inner("v", 4),), Colour.GREEN)
    expected = attrs.evolve(expected, ports={"http": 80})
    assert structure_settings(WithSettings, table, "s") == expected
    assert structure_settings(Inherits, table, "s") == expected
    assert structure_settings(WithDataclass, {"size": 5}, "s") == Plain(5)


def test_defaults_and_ready_made_objects() -> None:
    """No table gives the defaults; an object of the class is taken as it is."""
    ready = Settings(every=4.0)
    assert structure_settings(WithSettings, None, "s") == Settings()
    assert structure_settings(WithDefault, {}, "s") == Settings(every=9.0)
    assert structure_settings(WithSettings, ready, "s") is ready


def test_without_a_class_the_table_stays() -> None:
    """A daemon that declares nothing, or dict, gets the plain table."""
    assert settings_class(Base) is None
    assert structure_settings(Base, {"a": 1}, "s") == {"a": 1}
    assert structure_settings(Base, None, "s") == {}
    assert structure_settings(WithTable, {"a": 1}, "s") == {"a": 1}


def test_all_problems_at_once() -> None:
    """Every problem is there, each with its key path, and the nearest key."""
    found = problems(
        {
            "evry": 1,
            "names": "abc",
            "inner": {"weight": "heavy"},
            "several": [{"url": "ok"}, {"url": 5}],
            "colour": "x",
            "loud": "no",
            "ports": {"http": "80"},
        }
    )
    assert sorted(found) == [
        "daemon.x.settings.colour: 'x' is not one of 'red', 'green'",
        "daemon.x.settings.evry: unknown key; did you mean 'every'?",
        "daemon.x.settings.inner.url: missing, and required",
        "daemon.x.settings.inner.weight: expected a whole number, not str 'heavy'",
        "daemon.x.settings.loud: expected true or false, not str 'no'",
        "daemon.x.settings.names: expected an array, not str 'abc'",
        "daemon.x.settings.ports.http: expected a whole number, not str '80'",
        "daemon.x.settings.several[1].url: expected a text, not int 5",
    ]


def test_the_nearest_member_is_named() -> None:
    """A misspelt choice gets the nearest one."""
    (line,) = problems({"colour": "gren"})
    assert line.endswith("did you mean 'green'?")


@pytest.mark.parametrize("value", [True, "1", None, [1]])
def test_nothing_is_converted_silently(value: object) -> None:
    """A number is a number: no text, no boolean."""
    (line,) = problems({"every": value})
    assert line.startswith("daemon.x.settings.every: expected a number, not ")


def test_wrong_declarations_say_what_to_do() -> None:
    """An annotation that can't be resolved or structured is the author's mistake."""
    assert "top of its module" in problems({}, Lost)[0]
    assert "neither an attrs class nor a dataclass" in problems({}, NotStructured)[0]
    assert "expected a table, not list" in problems([1])[0]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["every", "names", "inner", "url", "colour", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_any_table_gives_settings_or_a_config_error(raw: object) -> None:
    """No table, however odd, gets another error out of it."""
    try:
        result = structure_settings(WithSettings, raw, "s")
    except ConfigError as error:
        assert str(error)
    else:
        assert isinstance(result, Settings)
