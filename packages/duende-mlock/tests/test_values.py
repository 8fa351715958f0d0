"""Configurations, statuses, errors and settings: values, without a kernel."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende import mlock
from duende.mlock import _darwin, _linux, _unsupported, limits
from duende.mlock.errors import CLASSES
from duende.mlock.locking import failure

NAMES = ("current", "future", "required", "onfault")


def test_the_defaults() -> None:
    """Everything, now and later, at once, and a failure raises."""
    config = mlock.MlockConfig()
    assert [getattr(config, name) for name in NAMES] == [True, True, True, False]
    assert mlock.MlockConfig.builder().build() == config


@given(st.fixed_dictionaries({name: st.booleans() for name in NAMES}))
def test_the_builder_builds_what_the_class_does(chosen: dict[str, bool]) -> None:
    """Setters in any order, the same value, comparable and hashable."""
    for order in itertools.islice(itertools.permutations(NAMES), 0, 24, 5):
        builder = mlock.MlockConfig.builder()
        for name in order:
            builder = getattr(builder, name)(chosen[name])
        built = builder.build()
        assert built == mlock.MlockConfig(**chosen)
        assert hash(built) == hash(mlock.MlockConfig(**chosen))


def test_a_configuration_is_frozen() -> None:
    """It can be kept and shared."""
    config: Any = mlock.MlockConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.current = False


@pytest.mark.parametrize("kind", sorted({*CLASSES.values(), mlock.MlockError}, key=str))
def test_errors_pickle(kind: type[mlock.MlockError]) -> None:
    """They cross a process border with class, errno, text and file."""
    error = kind(errno.EPERM, "text; hint", "/file")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert isinstance(copy, OSError)
    assert (copy.errno, copy.strerror, copy.filename) == (1, "text; hint", "/file")


@given(st.integers(1, 133))
def test_every_errno_becomes_one_error(number: int) -> None:
    """Whatever the kernel answers, the error has its errno and says what to do."""
    error = failure(number, "it can't be locked")
    assert error.errno == number
    assert "; " in str(error.strerror)


@pytest.mark.parametrize(
    ("declared", "mode"),
    [
        (None, "off"),
        (False, "off"),
        ("false", "off"),
        (True, "try"),
        ("true", "try"),
        ("required", "required"),
        (mlock.LockMode.TRY, "try"),
    ],
)
def test_precedence(declared: Any, mode: str) -> None:
    """The variable wins over what is declared; unset or empty it does nothing."""
    assert mlock.resolve_mode(declared, {}).value == mode
    assert mlock.resolve_mode(declared, {"DUENDE_MLOCK": ""}).value == mode
    for override in ("off", "try", "required"):
        found = mlock.resolve_mode(declared, {"DUENDE_MLOCK": override})
        assert found.value == override


@given(
    st.text().filter(
        lambda text: text.strip().lower() not in ("", "off", "try", "required")
    )
)
def test_other_values_are_one_clear_error(text: str) -> None:
    """The message has the variable, the value and those that can be used."""
    if not text:
        return
    with pytest.raises(ValueError, match="off, try or required") as caught:
        mlock.resolve_mode(None, {"DUENDE_MLOCK": text})
    assert repr(text) in str(caught.value)


def test_a_declared_value_that_is_none() -> None:
    """What a configuration may say is said."""
    with pytest.raises(ValueError, match="'yes'; it can be false, true or 'required'"):
        mlock.resolve_mode("yes", {})


def test_flags_by_architecture() -> None:
    """The values of asm/mman.h (Linux): three families differ from all others."""
    usual = {"current": 1, "future": 2, "onfault": 4}
    for machine in (
        "x86_64",
        "i686",
        "aarch64",
        "armv7l",
        "riscv64",
        "s390x",
        "mips64",
    ):
        assert _linux.flags_of(machine) == usual, machine
    for machine in ("ppc64le", "ppc", "sparc64", "alpha"):
        found = _linux.flags_of(machine)
        assert found == {"current": 0x2000, "future": 0x4000, "onfault": 0x8000}


@pytest.mark.parametrize("system", [_darwin, _unsupported])
def test_a_platform_without_mlockall(
    system: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unsupported: an error where it is required, a status where it isn't."""
    monkeypatch.setattr("duende.mlock._system.lock_all", system.lock_all)
    monkeypatch.setattr("duende.mlock._system.unlock_all", system.unlock_all)
    with pytest.raises(mlock.MlockUnsupportedError, match="Linux") as caught:
        mlock.lock_all()
    assert caught.value.errno == errno.ENOSYS
    status = mlock.lock_with_config(mlock.MlockConfig(required=False))
    assert (status.state, status.is_locked()) == ("unsupported", False)
    assert status.failure_errno == errno.ENOSYS
    assert status.reason
    with pytest.raises(mlock.MlockUnsupportedError):
        mlock.unlock_all()
    assert _unsupported.lock_range(0, 1, False) == errno.ENOSYS
    assert _unsupported.unlock_range(0, 1) == errno.ENOSYS
    assert _darwin.lock_range(0, 1, True) == errno.ENOSYS


@given(st.integers(0, 2**64 - 1), st.sampled_from(limits.SETS))
def test_capabilities_are_read_from_their_line(mask: int, kind: str) -> None:
    """Bit 14 of the set that was asked for, and of no other."""
    lines = [f"{name}:\t{mask if name == kind else 0:016x}" for name in limits.SETS]
    text = "Name:\tCapEff\n" + "\n".join(lines)
    assert limits.parse_capability(text, kind) == bool(mask >> 14 & 1)
    with pytest.raises(ValueError, match="CapXyz"):
        limits.parse_capability(text, "CapXyz")
