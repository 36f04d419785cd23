"""`python -m runners.emr`."""

from __future__ import annotations

import sys

from runners.emr.command import main

if __name__ == "__main__":
    sys.exit(main())
