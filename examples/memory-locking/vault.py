"""A daemon that keeps a secret, and lets none of its memory be swapped out."""

from __future__ import annotations

import secrets

from duende.core import Daemon, DaemonContext
from duende.mlock import forecast, lock_range, locked_bytes


class Vault(Daemon):
    """This holds a key in memory and says now and then how much is locked."""

    async def run(self, ctx: DaemonContext) -> None:
        """Keep the key until the daemon is asked to stop, then wipe it."""
        key = bytearray(secrets.token_bytes(32))
        # Its pages stay in RAM even where `lock_memory` is not set in duende.toml.
        with lock_range(key):
            cost = forecast(threads=4)
            ctx.logger.info(
                "locked: %.1f MiB; four threads more: %.1f MiB",
                locked_bytes() / 2**20,
                4 * cost.locked_per_thread / 2**20,
            )
            async for _ in ctx.every(1.0):
                ctx.notify_status(f"{locked_bytes() >> 20} MiB locked")
            key[:] = bytes(len(key))
