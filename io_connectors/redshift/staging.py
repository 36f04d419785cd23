"""A batch on its way into Redshift: a Parquet object and a manifest in S3, and the COPY that reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from io_connectors.s3.objects import Location, Putter
from io_connectors.sql.columns import PLACE
from io_connectors.sql.statements import Target
from transforms.hashing import text_digest

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*()/=+-]*")
_WRITTEN = {pa.int16(): pa.int32(), pa.timestamp("us"): pa.timestamp("us", "UTC")}
_PARQUET, _JSON = "application/vnd.apache.parquet", "application/json"


class Staged(msgspec.Struct, frozen=True):
    """A batch that lies in S3.

    Attributes:
        batch_id: tells its content.
        manifest: the URL of the object that names the others.
    """

    batch_id: str
    manifest: str


@dataclass(frozen=True)
class Staging:
    """A place in S3 for batches.

    Objects are named after their content and put once, however often a batch is written. They are not removed: an
    expiry of some days on the prefix is the bucket's own affair.

    Attributes:
        location: where they go.
        putter: puts them.
    """

    location: Location
    putter: Putter

    def put(self, values: pa.RecordBatch) -> Staged:
        """Put a batch into S3.

        Raises:
            UserError: there is no such bucket.
            Exception: a call failed for good.
        """
        content = parquet_of(values)
        batch_id = text_digest(content)
        key = self.location.key(f"{batch_id}.parquet")
        self.putter.put(self.location.bucket, key, content, _PARQUET)
        manifest = manifest_of(f"s3://{self.location.bucket}/{key}", len(content))
        name = self.location.key(f"{batch_id}.manifest")
        self.putter.put(self.location.bucket, name, manifest, _JSON)
        return Staged(batch_id, f"s3://{self.location.bucket}/{name}")


def parquet_of(values: pa.RecordBatch) -> bytes:
    """The file that COPY reads into the staging table, column by column in the order in which they stand there.

    What COPY takes is less than what Parquet knows. Whole numbers are 32 or 64 bits wide, and times are said to be UTC:
    those that are not lack the mark by which older readers know a time from a number.
    """
    columns = [column.cast(_WRITTEN.get(column.type, column.type)) for column in values.columns]
    place = pa.array(np.arange(values.num_rows, dtype=np.int32))
    table = pa.table([*columns, place], names=[*values.schema.names, PLACE])
    content = BytesIO()
    pq.write_table(table, content, version="2.4", compression="snappy", store_schema=False)
    return content.getvalue()


def manifest_of(url: str, size: int) -> bytes:
    """The manifest of one object: columnar files need their length beside their name.

    Example:
        >>> manifest_of("s3://fraud/staging/1.parquet", 7)
        b'{"entries":[{"url":"s3://fraud/staging/1.parquet","mandatory":true,"meta":{"content_length":7}}]}'
    """
    return msgspec.json.encode({"entries": [{"url": url, "mandatory": True, "meta": {"content_length": size}}]})


def copy_statement(target: Target, manifest: str, role: str) -> str:
    """The statement that reads a batch into the staging table.

    Args:
        target: whose staging table it is.
        manifest: the URL of its manifest.
        role: as `is_role` takes it; no key is ever part of a statement.
    """
    who = "DEFAULT" if role == "default" else f"'{role}'"
    return f"COPY {target.stage} FROM '{manifest}' IAM_ROLE {who} FORMAT AS PARQUET MANIFEST"


def is_role(text: str) -> bool:
    """Whether a text names a role that Redshift takes on, or is `default` for the cluster's own.

    Example:
        >>> is_role("arn:aws:iam::123456789012:role/load"), is_role("x' CREDENTIALS 'y")
        (True, False)
    """
    return text == "default" or _ROLE.fullmatch(text) is not None


def is_plain_prefix(text: str) -> bool:
    """Whether a prefix of S3 needs no escaping, wherever it stands.

    Example:
        >>> is_plain_prefix("staging/fraud"), is_plain_prefix("it's")
        (True, False)
    """
    return _PREFIX.fullmatch(text) is not None
