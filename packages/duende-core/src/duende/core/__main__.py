"""`python -m duende.core` is the same program as `duende`."""

from __future__ import annotations

from duende.core.cli import main

if __name__ == "__main__":
    main()
