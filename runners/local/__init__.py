"""Real servers on this machine's loopback interface, for demos and tests: `python -m runners.local up kafka`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from runners.local.ports import free_port
from runners.local.records import stop_all
from runners.local.server import Server

if TYPE_CHECKING:
    from runners.local.aws import Aws
    from runners.local.dynamodb import DynamoDb
    from runners.local.kafka import Kafka
    from runners.local.kafka_secure import KafkaOauth, KafkaScram
    from runners.local.kinesis import Kinesis, KinesisLocal
    from runners.local.lambda_emulator import LambdaEmulator
    from runners.local.mlflow import MlflowServer
    from runners.local.postgres import Postgres
    from runners.local.s3 import S3

#: Each needs its client's library: imported by those who ask for it, so that nobody else waits for it.
_MODULES = {
    "Aws": "aws",
    "DynamoDb": "dynamodb",
    "Kafka": "kafka",
    "KafkaOauth": "kafka_secure",
    "KafkaScram": "kafka_secure",
    "Kinesis": "kinesis",
    "KinesisLocal": "kinesis",
    "LambdaEmulator": "lambda_emulator",
    "MlflowServer": "mlflow",
    "Postgres": "postgres",
    "S3": "s3",
}

__all__ = [
    "S3",
    "Aws",
    "DynamoDb",
    "Kafka",
    "KafkaOauth",
    "KafkaScram",
    "Kinesis",
    "KinesisLocal",
    "LambdaEmulator",
    "MlflowServer",
    "Postgres",
    "Server",
    "free_port",
    "stop_all",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
