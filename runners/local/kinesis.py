"""Servers that speak Kinesis: kinesalite, fast and strict, and kinesis-local, which knows more of its calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from botocore.exceptions import ClientError

from runners.local.aws_api import CREDENTIALS, REGION, AwsServer
from runners.local.cache import installed
from runners.local.ports import HOST
from runners.local.processes import Command
from runners.local.tools import find_program, run_program
from runners.local.versions import KINESALITE, KINESIS_LOCAL

STREAM, SHARDS = "transaction-events", 2

#: Both would listen on every interface. Loaded before them, this lets no server of the process do so.
_ON_LOOPBACK = f"""
const {{ Server }} = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (where, ...rest) {{
  const options = typeof where === "object" ? where : {{ port: where }};
  const callback = rest.filter((argument) => typeof argument === "function");
  return listen.call(this, {{ ...options, host: "{HOST}" }}, ...callback);
}};
"""

#: Asked for an iterator at a time after which there is no record, kinesalite never answers. Kinesis gives one that
#: waits for what comes. The newest is asked for first: what is put while the records are looked at is not missed.
_ANSWERS_TIMESTAMPS = """
const Module = require("node:module");
const load = Module._load;
Module._load = function (request, ...rest) {
  const action = load.call(this, request, ...rest);
  return request.endsWith("actions/getShardIterator") ? atTimestamp(action) : action;
};
const atTimestamp = (action) => (store, query, done) => {
  if (query.ShardIteratorType !== "AT_TIMESTAMP" || query.Timestamp * 1000 > Date.now())
    return action(store, query, done);
  action(store, { ...query, ShardIteratorType: "LATEST", Timestamp: undefined }, (error, newest) => {
    if (error) return done(error);
    const hex = (index) => index.toString(16).padStart(8, "0");
    const shard = Number(query.ShardId.split("-").pop());
    let found = false;
    store.getStreamDb(query.StreamName).createReadStream({ gt: hex(shard), lt: hex(shard + 1) })
      .on("data", (record) => { found ||= record.value.ApproximateArrivalTimestamp >= query.Timestamp; })
      .on("error", done)
      .on("end", () => (found ? action(store, query, done) : done(null, newest)));
  });
};
"""

#: kinesis-local would wait for its clients to leave, for half a minute, and puts an exit of its own in the place of
#: Node's. The data is on the disk before it ends.
_ENDS_SOON = """
const exit = process.exit;
process.on("SIGTERM", () => setTimeout(() => exit.call(process, 0), 1500));
"""


@dataclass(frozen=True)
class Kinesis(AwsServer):
    """kinesalite: 11,000 puts a second, Kinesis' limits of size, closed shards that end. Its iterators do not expire.

    Attributes:
        directory, port: as of every server.
    """

    name: ClassVar[str] = "kinesis"
    default_port: ClassVar[int] = 4567
    services: ClassVar[tuple[str, ...]] = ("kinesis",)

    @property
    def url(self) -> str:
        """Of the stream of transactions, as the pipeline takes it."""
        return f"kinesis://{STREAM}?region={REGION}"

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--source", self.url)]

    def install(self) -> Path:
        return _fetch("kinesalite", KINESALITE)

    def command(self, installation: Path) -> Command:
        data = self.directory / "data"
        options = ["--port", str(self.port), "--path", str(data), "--shardLimit", "1000"]
        # What stays for half a second in Kinesis' transient states shows that clients wait for them; less will do.
        waits = [word for call in ("create", "delete", "update") for word in (f"--{call}StreamMs", "100")]
        program = installation / "node_modules" / "kinesalite" / "cli.js"
        return self._node(program, [*options, *waits], _ON_LOOPBACK + _ANSWERS_TIMESTAMPS, {})

    def ask(self) -> object:
        return self.client().list_streams()

    def prepare(self) -> None:
        self.create_stream(STREAM, SHARDS)

    def create_stream(self, stream: str, shards: int) -> None:
        """Create a stream, unless it is there, and wait till it can be used.

        Args:
            stream: its name.
            shards: how many.

        Raises:
            ClientError: the server refused.
            WaiterError: it was not ready in time.
        """
        client = self.client()
        try:
            client.create_stream(StreamName=stream, ShardCount=shards)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUseException":
                raise
        client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 0.05, "MaxAttempts": 200})

    def _node(self, program: Path, arguments: list[str], first: str, environment: Mapping[str, str]) -> Command:
        preload = self.directory / "first.js"
        preload.write_text(first, "utf-8")
        argv = (find_program("node", self.name), "--require", str(preload), str(program), *arguments)
        return Command(argv, self.directory, {**CREDENTIALS, **environment})


@dataclass(frozen=True)
class KinesisLocal(Kinesis):
    """kinesis-local: knows ChildShards and lets iterators expire; 1,900 puts a second, and accepts what is too long.

    It writes its data every second: what came in since is lost when it is killed.

    Attributes:
        directory, port: as of every server.
    """

    name: ClassVar[str] = "kinesis-local"
    default_port: ClassVar[int] = 4568

    def install(self) -> Path:
        return _fetch("kinesis-local", KINESIS_LOCAL)

    def command(self, installation: Path) -> Command:
        package = installation / "node_modules" / "kinesis-local"
        environment = {
            "KINESIS_MOCK_PLAIN_PORT": str(self.port),
            "KINESIS_MOCK_TLS_PORT": "0",  # any: nobody asks it
            "KINESIS_MOCK_CERT_PATH": str(package / "server.json"),
            "SHARD_LIMIT": "1000",
            "SHOULD_PERSIST_DATA": "true",
            "PERSIST_PATH": str(self.directory / "data"),
            "PERSIST_INTERVAL": "1s",
            "LOG_LEVEL": "WARN",
        }
        return self._node(package / "main.js", [], _ON_LOOPBACK + _ENDS_SOON, environment)


def _fetch(package: str, version: str) -> Path:
    def fill(directory: Path) -> None:
        purpose = f"fetching {package} {version}"
        find_program("node", purpose)
        # Both run without what packages would do while they are installed.
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory)]
        run_program([find_program("npm", purpose), "install", *options, f"{package}@{version}"], purpose, directory)

    return installed(package, version, fill, "fetching it with npm, up to 31 MB")
