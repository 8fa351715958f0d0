"""What a foreground `up` shows: progress, failures, and the merged logs.

Only reads: whatever happens to the display, control goes on.
"""

from __future__ import annotations

import anyio
import anyio.to_thread

from duende.core._drivers.log_feed import GrowingFile
from duende.core._drivers.project import KeeperProject
from duende.core._drivers.supervisor import Supervisor
from duende.core.control.api import Display

__all__ = ("log_ends", "show_logs", "show_progress")

_LAST_LINES = 10


async def show_progress(project: KeeperProject, display: Display) -> None:
    """This hands events to the display, names failures, and says once: all ready."""
    supervisor = project.supervisor
    told = False
    async with supervisor.engine.subscribe() as events:
        told = _tell_if_ready(supervisor, display, told)
        async for event in events:
            display.event(event)
            if event.type == "state" and event.to == "failed" and event.daemon:
                await project.flush((event.daemon,))
                lines = await anyio.to_thread.run_sync(
                    last_lines, project, event.daemon
                )
                display.failed(event.daemon, event.reason or "failed", lines)
            if not told and not events.statistics().current_buffer_used:
                # All have to be looked at: after the last event of many is enough.
                told = _tell_if_ready(supervisor, display, told)


def _tell_if_ready(supervisor: Supervisor, display: Display, told: bool) -> bool:
    if told:
        return True
    wanted = [r for r in supervisor.machine.records.values() if r.wanted]
    if not wanted or not all(r.ready or r.completed for r in wanted):
        return False
    display.ready(
        {"daemons": [info.to_json() for info in supervisor.infos()], "supervisor": {}}
    )
    return True


def last_lines(project: KeeperProject, name: str) -> list[bytes]:
    """This is what a daemon said last."""
    from duende.core.control.log_files import LogFiles

    index = project.settings.state / "index" / name
    files = LogFiles(name, str(project.log_path(name)), str(index))
    return [line for _, line in files.last_lines(files.current(), _LAST_LINES, None)]


def log_ends(project: KeeperProject) -> dict[str, GrowingFile]:
    """This marks where each log ends now: what comes later is to be shown."""
    return {
        name: GrowingFile.at_end(str(project.log_path(name)))
        for name, spec in project.specs.items()
        if spec.config.log.capture
    }


async def show_logs(
    project: KeeperProject, display: Display, files: dict[str, GrowingFile]
) -> None:
    """This hands every new line of every daemon to the display."""
    rests: dict[str, bytes] = {}

    def show(name: str, content: bytes) -> None:
        *lines, rests[name] = (rests.get(name, b"") + content).split(b"\n")
        for line in lines:
            display.log(name, line)

    def read_all() -> dict[str, bytes]:
        read = {name: file.read_new() for name, file in files.items()}
        return {name: content for name, content in read.items() if content}

    try:
        async with project.log_feed.follow(files) as notes:
            # What came before anybody followed, in one go: a hop to a thread costs
            # more than a thousand files without news.
            earlier = await anyio.to_thread.run_sync(read_all)
            for name, content in earlier.items():
                show(name, content)
            async for name in notes:
                show(name, await anyio.to_thread.run_sync(files[name].read_new))
    finally:
        for file in files.values():
            file.close()
