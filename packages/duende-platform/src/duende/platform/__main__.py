"""`python -m duende.platform`: where this runs, and what works here."""

from __future__ import annotations

import sys

from duende.platform._cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
