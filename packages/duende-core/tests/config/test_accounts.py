"""Who a daemon runs as."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from duende.core.config.accounts import Account, find_account
from duende.core.errors import ConfigError

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests, the code believes to be root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> pwd.struct_passwd:
    """Whoever runs the tests, the code believes to be nobody."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: NOBODY.pw_gid)
    return NOBODY


def test_nobody_asked() -> None:
    """Without user and group, everything stays as it is."""
    assert find_account(None, None, "x") == Account()


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("user", ["nobody", str(NOBODY.pw_uid)])
def test_by_name_or_number(user: str) -> None:
    """A user is looked up by either, with its group, groups and variables."""
    account = find_account(user, None, "x")
    assert (account.uid, account.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert account.groups == tuple(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert account.variables == {
        "HOME": NOBODY.pw_dir,
        "USER": "nobody",
        "LOGNAME": "nobody",
        "SHELL": NOBODY.pw_shell,
    }


@pytest.mark.usefixtures("as_root")
def test_another_group() -> None:
    """`group` takes the place of the user's own, and alone leaves the user."""
    group = grp.getgrall()[-1]
    account = find_account("nobody", group.gr_name, "x")
    assert account.gid == group.gr_gid
    assert group.gr_gid in (account.groups or ())
    if group.gr_gid != os.getegid():
        assert find_account(None, str(group.gr_gid), "x") == Account(gid=group.gr_gid)


@pytest.mark.usefixtures("as_root")
def test_a_uid_without_a_name() -> None:
    """A number that the database doesn't know needs a group beside it."""
    with pytest.raises(ConfigError, match="set group too"):
        find_account("3999999999", None, "x")
    account = find_account("3999999999", "7", "x")
    assert (account.uid, account.gid, account.groups) == (3_999_999_999, 7, (7,))
    assert account.variables["HOME"] == "/"


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    "user", ["no-such-user", "99999999999999999999", "4294967295", "²"]
)
def test_unknown_users(user: str) -> None:
    """An unknown user is a config error that names it."""
    with pytest.raises(ConfigError, match=f"there is no user '{user}'"):
        find_account(user, "7", "daemon 'x'")
    with pytest.raises(ConfigError, match="there is no user"):
        find_account("a\0", None, "daemon 'x'")


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("group", ["no-such-group", "99999999999", "4294967295"])
def test_unknown_groups(group: str) -> None:
    """So is an unknown group, and the number that means none."""
    with pytest.raises(ConfigError, match=f"there is no group '{group}'"):
        find_account(None, group, "daemon 'x'")


def test_a_user_may_be_itself(as_user: pwd.struct_passwd) -> None:
    """Without root, one may name oneself; nothing is changed then."""
    account = find_account(as_user.pw_name, None, "x")
    assert (account.uid, account.gid, account.groups) == (None, None, None)
    assert account.variables["USER"] == "nobody"
    assert find_account(None, str(as_user.pw_gid), "x") == Account()


def test_a_nameless_user_may_be_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """So may a uid that the user database doesn't know, as in many containers."""
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    account = find_account("3999999999", str(os.getegid()), "x")
    assert (account.uid, account.groups) == (None, None)
    assert account.variables["USER"] == "3999999999"


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("user", "group"),
    [("root", None), ("nobody", "0"), (None, "0"), ("3999999999", "7")],
)
def test_a_user_may_not_be_another(user: str | None, group: str | None) -> None:
    """Without root, another user or group is a config error that says so."""
    with pytest.raises(ConfigError, match="run duende as root"):
        find_account(user, group, "daemon 'x'")
