"""Real servers on this machine's loopback interface, for demos and tests: `python -m runners.local up kafka`."""

from __future__ import annotations

from runners.local.aws import Aws
from runners.local.dynamodb import DynamoDb
from runners.local.kafka import Kafka
from runners.local.kinesis import Kinesis, KinesisLocal
from runners.local.postgres import Postgres
from runners.local.s3 import S3
from runners.local.server import Server, free_port, stop_all

__all__ = ["S3", "Aws", "DynamoDb", "Kafka", "Kinesis", "KinesisLocal", "Postgres", "Server", "free_port", "stop_all"]
