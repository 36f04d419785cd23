"""Real servers on this machine's loopback interface, for demos and tests: `python -m runners.local up kafka`."""

from __future__ import annotations

from runners.local.kafka import Kafka
from runners.local.postgres import Postgres
from runners.local.server import Server, free_port, stop_all

__all__ = ["Kafka", "Postgres", "Server", "free_port", "stop_all"]
