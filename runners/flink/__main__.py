"""`python -m runners.flink`."""

from __future__ import annotations

import sys

from runners.flink.command import main

if __name__ == "__main__":
    sys.exit(main())
