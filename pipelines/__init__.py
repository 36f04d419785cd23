"""What runs: the fraud pipeline and its command, the producer, and training."""

from __future__ import annotations

import transforms as transforms  # before Beam: it keeps Beam from saying what no user needs to know
