"""Who a daemon runs as: `user` and `group` looked up in the system's databases."""

from __future__ import annotations

import os
from typing import Final, final

import attrs

from duende.core.errors import ConfigError

__all__ = ("Account", "find_account")

_NO_ID: Final = 2**32 - 1
"""(uid_t) -1 and (gid_t) -1, which mean "leave it" to setresuid(2) and its like."""


@final
@attrs.frozen(kw_only=True)
class Account:
    """This is what to change to; None means "stay as duende is".

    `variables` are what the user database says of HOME, USER, LOGNAME and SHELL.
    """

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    variables: dict[str, str] = attrs.Factory(dict)


def find_account(user: str | None, group: str | None, where: str) -> Account:
    """This looks up a user and a group, by name or number.

    Supplementary groups are the user's own. `where` begins each message.

    Raises:
        ConfigError: There is none such, or duende may not become it.
    """
    gid = None if group is None else _find_group(group, where)
    if user is None:
        if gid is not None and gid != os.getegid() and os.geteuid() != 0:
            raise ConfigError(
                f"{where}: group {group!r} can't be set by uid {os.geteuid()}",
                "run duende as root, or leave group out",
            )
        return Account(gid=None if gid == os.getegid() else gid)
    import pwd

    try:
        entry = pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        if _is_number(user) and int(user) < _NO_ID:
            return _nameless(int(user), gid, where)
        raise ConfigError(
            f"{where}: there is no user {user!r}", "correct user, or create it"
        ) from None
    variables = {
        "HOME": entry.pw_dir or "/",
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": entry.pw_shell or "/bin/sh",
    }
    chosen = entry.pw_gid if gid is None else gid
    if os.geteuid() != 0:
        _refuse_others(entry.pw_uid, gid, where, user)
        return Account(variables=variables)
    return Account(
        uid=entry.pw_uid,
        gid=chosen,
        groups=tuple(os.getgrouplist(entry.pw_name, chosen)),
        variables=variables,
    )


def _nameless(uid: int, gid: int | None, where: str) -> Account:
    """This is a uid that the user database doesn't know."""
    if gid is None:
        raise ConfigError(
            f"{where}: uid {uid} has no entry in the user database, so its group "
            "is not known",
            "set group too",
        )
    variables = {"HOME": "/", "USER": str(uid), "LOGNAME": str(uid), "SHELL": "/bin/sh"}
    if os.geteuid() != 0:
        _refuse_others(uid, gid, where, str(uid))
        return Account(variables=variables)
    return Account(uid=uid, gid=gid, groups=(gid,), variables=variables)


def _refuse_others(uid: int, gid: int | None, where: str, user: str) -> None:
    if uid != os.geteuid() or gid not in (None, os.getegid()):
        raise ConfigError(
            f"{where}: user {user!r} can't be set by uid {os.geteuid()}",
            "run duende as root, or leave user and group out",
        )


def _find_group(group: str, where: str) -> int:
    if _is_number(group):
        number = int(group)
        if number < _NO_ID:
            return number
    else:
        import grp

        try:
            return grp.getgrnam(group).gr_gid
        except (KeyError, ValueError):
            pass
    raise ConfigError(
        f"{where}: there is no group {group!r}", "correct group, or create it"
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
