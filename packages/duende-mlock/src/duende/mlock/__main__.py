"""`python -m duende.mlock`: what is locked, whether locking works, what mends it."""

from __future__ import annotations

import sys

from duende.mlock._cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
