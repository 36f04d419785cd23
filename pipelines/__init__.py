"""What runs: the fraud pipeline and its command, and training."""

from __future__ import annotations

import logging

# Beam says on import that Google's packages are absent. Nothing here needs them, and it is the first thing a
# newcomer would read.
logging.getLogger().addFilter(lambda record: not str(record.msg).startswith("apitools not found"))
