"""The command `python -m duende.platform`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from duende.platform.errors import PlatformInfoError
from duende.platform.survey import survey

__all__ = ("main",)

GOOD, FAILED = 0, 1


def main(arguments: Sequence[str]) -> int:
    """This runs the command and gives its exit code. 0: answered. 1: not. 2: usage."""
    options = _parser().parse_args(arguments)
    try:
        found = survey(with_capabilities=not options.no_capabilities)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        text = found.as_json() if options.output == "json" else found.as_text()
        print(text, flush=True)
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    except (PlatformInfoError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(f"duende.platform: {reason}", file=sys.stderr)
        return FAILED
    return GOOD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m duende.platform",
        description="Where this program runs, what limits it, and what works here.",
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument(
        "--no-capabilities",
        action="store_true",
        help="only look at this machine; ask no engine and no manager",
    )
    return parser
