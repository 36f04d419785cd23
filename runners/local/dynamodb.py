"""DynamoDB Local, which AWS makes: conditional writes, transactions and streams as in DynamoDB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from runners.local.aws_api import AwsServer
from runners.local.cache import installed
from runners.local.jvm import compile_java, fetch_jars, java
from runners.local.processes import Command
from runners.local.versions import DYNAMODB

_LAUNCHER = Path(__file__).with_name("DynamoDBOnLoopback.java")


@dataclass(frozen=True)
class DynamoDb(AwsServer):
    """DynamoDB Local with no tables. It throttles nothing, and items past their TTL stay.

    Attributes:
        directory, port: as of every server.
        in_memory: keeps nothing when it ends. On a disk each item waits until it is there, which is seven times as
            slow on a quiet machine, and a hundred times on a busy one.
    """

    in_memory: bool = True

    name: ClassVar[str] = "dynamodb"
    default_port: ClassVar[int] = 8000
    services: ClassVar[tuple[str, ...]] = ("dynamodb",)

    @property
    def url(self) -> str:
        """Of a table that the sink creates, as the pipeline takes it."""
        return "dynamodb://fraud-decisions?create=true"

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--sink", self.url)]

    def install(self) -> Path:
        jars = installed(
            "dynamodb",
            DYNAMODB,
            lambda directory: fetch_jars([f"com.amazonaws:DynamoDBLocal:{DYNAMODB}"], directory),
            "fetching it with Maven, 51 MB",
        )
        compile_java(_LAUNCHER, jars)
        return jars

    def command(self, installation: Path) -> Command:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        launcher = compile_java(_LAUNCHER, installation)
        flags = (f"-Djava.library.path={installation / 'lib'}", "-Dlog4j2.level=WARN")
        arguments = [str(self.port), *([] if self.in_memory else [str(data)])]
        argv = java(installation, _LAUNCHER.stem, *arguments, heap="768m", extra=launcher, flags=flags)
        return Command(argv, self.directory, {"DDB_LOCAL_TELEMETRY": "0"})

    def ask(self) -> object:
        return self.client().list_tables()
