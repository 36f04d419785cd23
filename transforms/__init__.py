"""Reusable transforms: what happens to a batch of transactions between source and sink."""

from __future__ import annotations

import logging

# Beam says on import that Google's packages are absent. Nothing here needs them, and it is the first thing a
# newcomer would read. The other packages that a command may begin in import this one for it.
logging.getLogger().addFilter(lambda record: not str(record.msg).startswith("apitools not found"))
