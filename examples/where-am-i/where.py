"""Where this runs, how large a pool of workers fits here, and who could run daemons.

Run it on a machine, in a container with `-m 64m --cpus 0.5`, in a unit: it is right.
"""

from __future__ import annotations

import math
import os

from duende.platform import capabilities, cpu_limit, detect, memory_available


def workers(bytes_each: int) -> int:
    """This is how many workers fit: by processors, and by memory."""
    processors = cpu_limit() or os.cpu_count() or 1
    return max(1, min(math.ceil(processors), memory_available() // bytes_each))


def main() -> None:
    """Print it."""
    report = detect()
    place = report.container or report.virtual_machine or "a machine of its own"
    print(f"{report.platform.value}, {report.confidence:.0%} sure; in {place}")
    print(f"workers of 32 MiB that fit here: {workers(32 * 2**20)}")
    found = capabilities()
    for name in ("systemd-system", "systemd-user", "docker", "podman"):
        each = found[name]
        print(f"{name}: {each.state}: {each.mend or each.reason}")


if __name__ == "__main__":
    main()
