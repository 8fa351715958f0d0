"""What is to be locked."""

from __future__ import annotations

import dataclasses
from typing import Self, final

__all__ = ("MlockConfig", "MlockConfigBuilder")


@final
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MlockConfig:
    """This is what `lock_with_config` locks, and what a failure means.

    Any combination can be written down; `lock_with_config` refuses those that mlockall(2)
    gives no meaning to: nothing at all, and `onfault` alone.
    """

    current: bool = True
    """Everything that is mapped now (MCL_CURRENT)."""
    future: bool = True
    """Everything that will be mapped from now on (MCL_FUTURE)."""
    required: bool = True
    """Whether a failure raises; else the returned status tells."""
    onfault: bool = False
    """Pages are locked when they are first touched, not read in at once (MCL_ONFAULT,
    Linux 4.4). It saves memory that is never touched; the limit counts it all the same."""

    @classmethod
    def builder(cls) -> MlockConfigBuilder:
        """This begins a configuration that is put together step by step."""
        return MlockConfigBuilder()


@final
class MlockConfigBuilder:
    """This puts an `MlockConfig` together; each setter gives the builder back."""

    __slots__ = ("_chosen",)

    def __init__(self) -> None:
        self._chosen = MlockConfig()

    def _with(self, **changes: bool) -> Self:
        self._chosen = dataclasses.replace(self._chosen, **changes)
        return self

    def current(self, value: bool = True) -> Self:
        """This says whether what is mapped now is locked."""
        return self._with(current=value)

    def future(self, value: bool = True) -> Self:
        """This says whether what will be mapped is locked."""
        return self._with(future=value)

    def required(self, value: bool = True) -> Self:
        """This says whether a failure raises."""
        return self._with(required=value)

    def onfault(self, value: bool = True) -> Self:
        """This says whether pages are locked only when they are touched."""
        return self._with(onfault=value)

    def build(self) -> MlockConfig:
        """This gives what was put together."""
        return self._chosen
