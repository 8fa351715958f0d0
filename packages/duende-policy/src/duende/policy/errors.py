"""The one tree of errors of duende.policy."""

from __future__ import annotations

from typing import final

__all__ = ("PolicyError", "PressureUnavailable")


class PolicyError(Exception):
    """This is the root of everything that duende.policy raises on purpose.

    `what` says what was attempted and what was found; `hint` says what to do.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


@final
class PressureUnavailable(PolicyError):
    """This says that the kernel gives no pressure figures here, and why."""
