"""A PostgreSQL server made to look like Redshift to its own driver; COPY from S3 is done by a loader of the tests.

Redshift has no stand-in. It speaks PostgreSQL's protocol, so all statements but a few run on a PostgreSQL server:
what the shim cannot leave as it is, it rewrites on the wire, and what it is not told of it passes on.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

#: What PostgreSQL knows of the parameters with which a connection begins.
KNOWN = frozenset((b"user", b"database", b"application_name"))
VERSION = b"8.0.2"

_COPY = re.compile(r'COPY ("\w+") FROM \'s3://([^/]+)/([^\']+)\' IAM_ROLE \'arn:[^\']+\' FORMAT AS PARQUET MANIFEST')
_STAGE = re.compile(r'CREATE TEMPORARY TABLE ("\w+") \((.*)\)$')
_PHYSICAL = re.compile(r' ENCODE \w+|\nDISTSTYLE KEY DISTKEY \("\w+"\)|\nSORTKEY \("\w+"\)')

#: The types of Parquet columns that COPY takes for columns of the staging table: nothing is converted.
TAKES = {
    "varchar(65535)": pa.string(),
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "double precision": pa.float64(),
    "timestamp": pa.timestamp("us", "UTC"),
}


@dataclass
class Loader:
    """Does what COPY does with a manifest and Parquet files, as far as it is known, and stricter than it where not.

    Attributes:
        client: of S3.
        copied: the manifests that were loaded.
    """

    client: Any
    copied: list[str] = field(default_factory=list)
    _stages: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def rewrite(self, statement: str) -> str:
        """A statement of Redshift's as PostgreSQL takes it."""
        if stage := _STAGE.match(statement):
            columns = re.findall(r'"(\w+)" ([^,]+?)(?:, |$)', stage[2])
            self._stages[stage[1]] = columns
        elif copy := _COPY.fullmatch(statement):
            return self._insert(*copy.groups())
        return _PHYSICAL.sub("", statement)

    def _insert(self, stage: str, bucket: str, manifest: str) -> str:
        entries = json.loads(self._get(bucket, manifest))["entries"]
        self.copied.append(manifest)
        rows: list[dict[str, Any]] = []
        for entry in entries:
            bucket, _, key = entry["url"].removeprefix("s3://").partition("/")
            content = self._get(bucket, key)
            assert len(content) == entry["meta"]["content_length"]
            rows += self._rows(stage, pq.read_table(BytesIO(content)))
        told = json.dumps(rows, default=str).replace("'", "''")
        for number in ("NaN", "Infinity", "-Infinity"):  # JSON has no such numbers, but PostgreSQL takes them as text
            told = told.replace(f": {number}", f': "{number}"')
        return f"INSERT INTO {stage} SELECT * FROM json_populate_recordset(NULL::{stage}, '{told}')"  # noqa: S608

    def _rows(self, stage: str, table: pa.Table) -> list[dict[str, Any]]:
        declared = self._stages[stage]
        assert [name for name, _ in declared] == table.schema.names  # by place, so in the table's order
        assert [TAKES[kind] for _, kind in declared] == table.schema.types
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def _get(self, bucket: str, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content


class RedshiftShim:
    """Stands in front of a PostgreSQL server.

    Attributes:
        port: on loopback, where the driver is to go.
        statements: all that it sent, as it sent them.
    """

    def __init__(self, host: str, port: int, rewrite: Callable[[str], str]) -> None:
        self.server = (host, port)
        self.rewrite = rewrite
        self.statements: list[str] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.server)
            except OSError:
                client.close()
                continue
            ends = (client, server)
            for end in ends:  # many small messages, none of which should wait for the next
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(*ends, self._forward, _startup), daemon=True).start()
            threading.Thread(target=_pump, args=(*reversed(ends), _answer, None), daemon=True).start()

    def _forward(self, kind: bytes, body: bytes) -> bytes:
        """What the driver sends: of Parse the statement is rewritten."""
        if kind != b"P":
            return body
        name, statement, rest = body.split(b"\0", 2)
        self.statements.append(statement.decode())
        return b"\0".join([name, self.rewrite(statement.decode()).encode(), rest])


def _answer(kind: bytes, body: bytes) -> bytes:
    """What the server sends: of its parameters the version is Redshift's."""
    name, _, _ = body.partition(b"\0")
    return b"\0".join([name, VERSION, b""]) if kind == b"S" and name == b"server_version" else body


def _startup(source: socket.socket) -> bytes:
    """The first message, which has no kind, without parameters that PostgreSQL refuses."""
    (length,) = struct.unpack("!i", _exactly(source, 4))
    words = _exactly(source, length - 4)[4:].split(b"\0")
    pairs = [(name, value) for name, value in zip(words[::2], words[1::2], strict=False) if name in KNOWN]
    body = b"".join(name + b"\0" + value + b"\0" for name, value in pairs) + b"\0"
    return struct.pack("!ii", len(body) + 8, 196_608) + body


def _pump(
    source: socket.socket,
    target: socket.socket,
    change: Callable[[bytes, bytes], bytes],
    begin: Callable[[socket.socket], bytes] | None,
) -> None:
    with suppress(OSError, EOFError):
        if begin:
            target.sendall(begin(source))
        while True:
            kind = _exactly(source, 1)
            (length,) = struct.unpack("!i", _exactly(source, 4))
            body = change(kind, _exactly(source, length - 4))
            target.sendall(kind + struct.pack("!i", len(body) + 4) + body)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def _exactly(source: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = source.recv(size - len(content))
        if not part:
            raise EOFError
        content += part
    return bytes(content)
