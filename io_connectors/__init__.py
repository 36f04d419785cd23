"""Sources and sinks, each named by a URL."""

from __future__ import annotations

import transforms as transforms  # before Beam: it keeps Beam from saying what no user needs to know
