"""`python -m runners.local`."""

from __future__ import annotations

import sys

from runners.local.command import main

if __name__ == "__main__":
    sys.exit(main())
