"""Environments and env files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duende.core.config.accounts import Account
from duende.core.config.environment import (
    build_environment,
    check_strings,
    parse_env_file,
)
from duende.core.config.model import DaemonConfig
from duende.core.errors import ConfigError

OURS = {
    "PATH": "/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "LANG": "C",
    "AWS_KEY": "k",
    "AWS_REGION": "r",
    "DATABASE_URL": "d",
    "SECRET": "s",
    "PYTHONPATH": "/p",
    "LD_PRELOAD": "/l",
    "NOTIFY_SOCKET": "/n",
    "LISTEN_FDS": "3",
    "WATCHDOG_USEC": "1",
}


def _build(
    folder: Path, account: Account | None = None, **keys: object
) -> dict[str, str]:
    return build_environment(
        DaemonConfig(name="x", command=("x",), **keys),  # type: ignore[arg-type]  # each test gives what fits
        base_dir=folder,
        environ=OURS,
        account=account or Account(),
        own={"DUENDE_NAME": "x"},
        where="daemon 'x'",
    )


def test_only_the_base_list_is_inherited(tmp_path: Path) -> None:
    """A daemon gets nothing of the supervisor's environment by accident."""
    assert _build(tmp_path) == {
        "PATH": "/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "LANG": "C",
        "PYTHONUNBUFFERED": "1",
        "DUENDE_NAME": "x",
    }


def test_names_and_globs_are_added(tmp_path: Path) -> None:
    """inherit_env adds names and patterns to the base list."""
    env = _build(tmp_path, inherit_env=["DATABASE_URL", "AWS_*"])
    assert {"DATABASE_URL", "AWS_KEY", "AWS_REGION", "PATH"} <= env.keys()
    assert "SECRET" not in env


def test_everything_and_nothing(tmp_path: Path) -> None:
    """`true` inherits all but what was meant for duende itself, `false` nothing."""
    everything = _build(tmp_path, inherit_env=True)
    assert {"SECRET", "PYTHONPATH"} <= everything.keys()
    assert not {"NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC"} & everything.keys()
    by_glob = _build(tmp_path, inherit_env=["*"])
    assert by_glob == everything
    nothing = _build(tmp_path, inherit_env=False)
    assert nothing == {"PYTHONUNBUFFERED": "1", "DUENDE_NAME": "x"}


def test_who_wins(tmp_path: Path) -> None:
    """Inherited, user, env_file in turn, env, and duende's own: the later wins."""
    (tmp_path / "1.env").write_text("HOME=file1\nA=file1\nB=file1\nC=file1\n")
    (tmp_path / "2.env").write_text("B=file2\nC=file2\nDUENDE_NAME=file2\n")
    env = _build(
        tmp_path,
        Account(variables={"HOME": "/home/u", "USER": "u", "PATH": "/u"}),
        env_file=["1.env", "2.env"],
        env={"C": "env", "PYTHONUNBUFFERED": ""},
    )
    assert (env["PATH"], env["USER"], env["HOME"]) == ("/u", "u", "file1")
    assert (env["A"], env["B"], env["C"]) == ("file1", "file2", "env")
    assert (env["PYTHONUNBUFFERED"], env["DUENDE_NAME"]) == ("", "x")


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\nB = 2 \n\n# no\n  # no\n", {"A": "1", "B": "2"}),
        ("export A=1\nexport\tB=2", {"A": "1", "B": "2"}),
        ("exported=1", {"exported": "1"}),
        ("A='a # b' # c", {"A": "a # b"}),
        ('A="a\\nb\\"c\\\\d\\$e\\x"', {"A": 'a\nb"c\\d$e\\x'}),
        ("A='a\\nb'", {"A": "a\\nb"}),
        ("A=b#c #d", {"A": "b#c"}),
        ("A=\nB=# nothing", {"A": "", "B": ""}),
        ("A=a=b", {"A": "a=b"}),
        ("A=$B ${C}", {"A": "$B ${C}"}),
        ("A=it's", {"A": "it's"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("my.key-1=x", {"my.key-1": "x"}),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, str) else "",
)
def test_env_files(text: str, variables: dict[str, str]) -> None:
    """The documented format is read."""
    assert parse_env_file(text, "f") == variables


def test_wrong_lines_are_all_named() -> None:
    """All wrong lines are reported with their number, and no value is shown."""
    text = "A=1\nsecret words\nB='secret\nC=\"secret\n=secret\nD=secret\0\n"
    with pytest.raises(ConfigError) as caught:
        parse_env_file(text, "f.env")
    assert caught.value.problems == (
        "f.env:2: is no NAME=VALUE",
        "f.env:3: B: the quotes don't match",
        "f.env:4: C: the quotes don't match",
        "f.env:5: is no NAME=VALUE",
        "f.env:6: has a NUL character in the value of D, which no program can get",
    )


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    )
)
def test_quoted_values_come_back(variables: dict[str, str]) -> None:
    """What is quoted by the documented rules is read back exactly."""
    escapes = str.maketrans(
        {"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"}
    )
    text = "\n".join(f'{k}="{v.translate(escapes)}"' for k, v in variables.items())
    assert parse_env_file(text, "f") == variables


def test_a_missing_env_file_is_named(tmp_path: Path) -> None:
    """An env file is read at each start, and one that is gone is a config error."""
    with pytest.raises(ConfigError, match=r"env_file .*\.env can't be read: No such"):
        _build(tmp_path, env_file=[".env"])
    (tmp_path / ".env").write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match=r"not UTF-8 \(byte 2\)"):
        _build(tmp_path, env_file=[".env"])
    (tmp_path / ".env").write_text("A=1")
    assert _build(tmp_path, env_file=[".env"])["A"] == "1"


def test_what_exec_would_refuse() -> None:
    """What is too long for execve is refused with its name, before anything starts."""
    with pytest.raises(ConfigError, match="bytes in BIG"):
        check_strings(["x"], {"BIG": "x" * 131_072}, "daemon 'x'")
    check_strings(["x"], {"BIG": "x" * (131_072 - 5)}, "daemon 'x'")
    with pytest.raises(ConfigError, match="an argument has 131073 bytes"):
        check_strings(["x" * 131_072], {}, "daemon 'x'")
    with pytest.raises(ConfigError, match="NUL"):
        check_strings(["a\0"], {}, "daemon 'x'")
    with pytest.raises(ConfigError, match="NUL"):
        check_strings(["a"], {"A": "\0"}, "daemon 'x'")
    many = {f"V{index}": "x" * 100_000 for index in range(100)}
    with pytest.raises(ConfigError, match="arguments and environment"):
        check_strings(["a"], many, "daemon 'x'")
