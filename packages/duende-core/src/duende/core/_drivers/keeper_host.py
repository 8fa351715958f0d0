"""Daemons that are processes: the supervisor's orders as lines to the keeper.

The keeper's answers and events come back as `machines.host_events`. Nothing is
decided here, and nothing but `barrier` waits.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from duende.core.adapters.keeper_lines import parse_event, render_spawn
from duende.core.config.launch import render_launch
from duende.core.config.plan import DaemonSpec
from duende.core.errors import ConfigError, NotSupported, SpawnError
from duende.core.keeper_client import AsyncKeeper
from duende.core.machines.host_events import HostEvent, SpawnFailed

__all__ = ("KeeperHost", "KeeperSettings")


class KeeperSettings(Protocol):
    """This is what the host needs to know of the project."""

    @property
    def base_dir(self) -> Path:
        """What relative paths are relative to."""
        ...

    @property
    def file(self) -> Path | None:
        """The configuration's file, if there is one."""
        ...

    @property
    def project(self) -> str:
        """The project's name."""
        ...

    @property
    def log_dir(self) -> Path:
        """Where logs are written."""
        ...

    @property
    def log_total_max(self) -> int:
        """What all logs together may take, in bytes."""
        ...

    @property
    def environ(self) -> dict[str, str]:
        """What daemons inherit from."""
        ...


class KeeperHost:
    """This carries out orders for processes through an attached keeper.

    Args:
        settings: The project's folders and environment.
        spec_of: Gives the specification of a daemon.
        blob_of: Gives what is to be kept with a start.
        deliver: Takes what happened.
        clock: Gives the monotonic time in nanoseconds.
    """

    platform = "native"

    def __init__(
        self,
        settings: KeeperSettings,
        *,
        spec_of: Callable[[str], DaemonSpec],
        blob_of: Callable[[str], dict[str, Any]],
        deliver: Callable[..., None],
        clock: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._spec_of = spec_of
        self._blob_of = blob_of
        self._deliver = deliver
        self._clock = clock
        self._keeper: AsyncKeeper | None = None
        self._scopes: dict[str, str] = {}
        self._held: dict[str, int] = {}
        self._logs: dict[str, tuple[int, int]] = {}
        self.dropped: dict[str, int] = {}
        self.on_log: Callable[[str, int, int], None] = lambda name, gen, size: None

    # -- the connection ---------------------------------------------------------------

    @property
    def keeper(self) -> AsyncKeeper:
        """The keeper at the other end.

        Raises:
            NotSupported: None is attached at the moment.
        """
        if self._keeper is None:
            raise NotSupported("no keeper is attached", "it is being started again")
        return self._keeper

    def connect(self, keeper: AsyncKeeper, slots: Iterable[dict[str, Any]]) -> None:
        """This takes a keeper, new or known, and what it said of its slots."""
        self._keeper = keeper
        for slot in slots:
            self._note_slot(slot)

    def disconnect(self) -> None:
        """This notes that the keeper is gone; orders are dropped until `connect`."""
        self._keeper = None

    def _note_slot(self, slot: dict[str, Any]) -> None:
        name = slot["name"]
        self._scopes[name] = slot.get("kill_scope") or "subreaper"
        self.dropped[name] = int(slot.get("dropped") or 0)
        self._note_files(name, slot)

    def _note_files(self, name: str, line: dict[str, Any]) -> None:
        log = line.get("log")
        if log:
            self._logs[name] = (int(log["gen"]), int(log["size"]))
        if line.get("fifo"):
            self._hold(name, line["fifo"])

    def _hold(self, name: str, fifo: str) -> None:
        """This keeps the daemon's pipe alive should the keeper die; it never reads."""
        if name in self._held:
            return
        try:
            self._held[name] = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return

    def close(self) -> None:
        """This lets go of the pipes."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    # -- orders -------------------------------------------------------------------------

    def spawn(self, name: str, run: str) -> None:
        spec = self._spec_of(name)
        settings = self._settings
        try:
            launch = render_launch(
                spec,
                base_dir=settings.base_dir,
                project=settings.project,
                run_id=run,
                environ=settings.environ,
                file=settings.file,
            )
        except ConfigError as error:
            self._refuse(name, run, "config", None, str(error), permanent=True)
            return
        except SpawnError as error:
            self._refuse(
                name, run, error.step, error.errno, str(error), permanent=False
            )
            return
        self._send(
            render_spawn(
                spec,
                launch,
                run=run,
                log_dir=settings.log_dir,
                log_total_max=settings.log_total_max,
                blob=self._blob_of(name),
            )
        )

    def _refuse(
        self,
        name: str,
        run: str,
        step: str,
        number: int | None,
        text: str,
        *,
        permanent: bool,
    ) -> None:
        self._deliver(
            SpawnFailed(name, run, step, number, text, permanent, self._clock())
        )

    def signal(self, name: str, run: str, number: int, scope: str) -> None:
        self._send(
            {"op": "signal", "name": name, "run": run, "sig": number, "scope": scope}
        )

    async def signal_checked(self, name: str, run: str, number: int) -> int:
        """This signals the main process and says how many processes got it."""
        reply = await self.keeper.request(
            "signal", name=name, run=run, sig=number, scope="main"
        )
        return int(reply.get("count", 0))

    def persist(self, name: str, blob: dict[str, Any], *, sync: bool) -> None:
        self._send({"op": "put", "name": name, "blob": blob, "sync": sync})

    def kill_scope(self, name: str) -> str | None:
        return self._scopes.get(name, "subreaper")

    def log_position(self, name: str) -> tuple[int, int] | None:
        """This is (generation, size) of the daemon's log as far as it is known."""
        return self._logs.get(name)

    def remove(self, name: str) -> None:
        self._send({"op": "forget", "name": name})
        descriptor = self._held.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    async def barrier(self) -> None:
        await self.keeper.request("flush", names=[])

    async def tree(self, name: str) -> list[int]:
        """This lists the pids of a daemon's whole tree, the main process first."""
        reply = await self.keeper.request("tree", name=name)
        return [int(pid) for pid in reply.get("pids", ())]

    def _send(self, line: dict[str, Any]) -> None:
        if self._keeper is not None:
            self._keeper.send_nowait(line)

    # -- what happened ----------------------------------------------------------------------

    async def serve(self, batches: AsyncIterator[list[dict[str, Any]]]) -> None:
        """This hands on what the keeper says, a read at a time, until it is gone.

        Raises:
            KeeperLost: It is gone.
        """
        async for batch in batches:
            self.take_in(batch)

    def take_in(self, batch: list[dict[str, Any]]) -> None:
        """This hands on one batch of the keeper's lines."""
        events = [event for line in batch if (event := self._read(line)) is not None]
        if events:
            self._deliver(*events)

    def _read(self, line: dict[str, Any]) -> HostEvent | None:
        name = line.get("name", "")
        match line.get("ev"):
            case "spawned":
                self._scopes[name] = "subreaper"
                self._note_files(name, line)
            case "dropped":
                self.dropped[name] = int(line.get("total") or 0)
            case "log":
                gen, size = int(line["gen"]), int(line["size"])
                self._logs[name] = (gen, size)
                self.on_log(name, gen, size)
        return parse_event(line, self._clock())
