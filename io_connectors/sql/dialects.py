"""Where PostgreSQL and Redshift differ in what they are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from io_connectors.sql.columns import Kind
from io_connectors.sql.names import LONGEST_POSTGRESQL, LONGEST_REDSHIFT


@dataclass(frozen=True)
class Dialect:
    """How a database is spoken to.

    Attributes:
        name: for messages.
        command: prints the statements that create tables.
        longest_name: of a table or a column.
        types: of the table's columns.
        staged: of the staging table's columns.
        parameter: a value's place in a statement, with `{}` for its name.
        lock: makes the transactions of all writers wait for each other; `{}` is the table.
        stage_lives: whether the staging table outlives a transaction, empty, or is made and dropped in each.
        keeps_in_merge: whether MERGE can leave a row alone that is there; otherwise it must be removed beforehand.
        json_lists: whether a list of text is JSON in one.
        counts_bytes: whether the length of text is one of bytes or of characters.
        now: of the ledger, when a batch was loaded, and its type.
        encodings: how columns are compressed, by name or else by kind; empty where that is not for us to say.
        fits: the types of columns that take a kind, as the catalogue calls them.
        catalogue: a query for the columns of the table `schema`.`table`: name, type, length, and whether a row
            must give a value.
    """

    name: str
    command: str
    longest_name: int
    types: Mapping[Kind, str]
    staged: Mapping[Kind, str]
    parameter: str
    lock: str
    stage_lives: bool
    keeps_in_merge: bool
    json_lists: bool
    counts_bytes: bool
    now: str
    encodings: Mapping[str, str]
    fits: Mapping[Kind, frozenset[str]]
    catalogue: str

    def value(self, name: str) -> str:
        """Where a statement has the value of that name."""
        return self.parameter.format(name)


_TEXT = frozenset(("text", "character varying", "character", "USER-DEFINED"))
_NUMBER = frozenset(("numeric", "double precision", "real"))
_FITS: Mapping[Kind, frozenset[str]] = {
    "text": _TEXT,
    "texts": frozenset(("ARRAY",)),
    "flag": frozenset(("boolean",)),
    "small": _NUMBER | {"smallint", "integer", "bigint"},
    "integer": _NUMBER | {"integer", "bigint"},
    "big": _NUMBER | {"bigint"},
    "double": _NUMBER,
    "money": _NUMBER,
    "time": frozenset(("timestamp with time zone", "timestamp without time zone")),
}

_POSTGRESQL_TYPES: Mapping[Kind, str] = {
    "text": "text",
    "texts": "text[]",
    "flag": "boolean",
    "small": "smallint",
    "integer": "integer",
    "big": "bigint",
    "double": "double precision",
    "money": "numeric(12,2)",
    "time": "timestamptz",
}

POSTGRESQL = Dialect(
    name="PostgreSQL",
    command="python -m io_connectors.postgresql ddl",
    longest_name=LONGEST_POSTGRESQL,
    types=_POSTGRESQL_TYPES,
    staged={**_POSTGRESQL_TYPES, "money": "double precision"},
    parameter="%({})s",
    lock="LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
    stage_lives=True,
    keeps_in_merge=True,
    json_lists=False,
    counts_bytes=False,
    now="timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP",
    encodings={},
    fits=_FITS,
    catalogue=(
        "SELECT column_name, data_type, character_maximum_length, is_nullable = 'NO' AND column_default IS NULL "
        "AND is_identity = 'NO' AND is_generated = 'NEVER' FROM information_schema.columns "
        "WHERE table_schema = %(schema)s AND table_name = %(table)s"
    ),
)

#: Text is VARCHAR with room for what there is; a column may be made wider. A list of reasons is text, as JSON:
#: what holds it in staging must hold it in every Parquet reader. Times in Parquet have no time zone for COPY.
REDSHIFT = Dialect(
    name="Redshift",
    command="python -m io_connectors.redshift ddl",
    longest_name=LONGEST_REDSHIFT,
    types={
        **_POSTGRESQL_TYPES,
        "text": "varchar(256)",
        "texts": "varchar(4096)",
    },
    staged={
        **_POSTGRESQL_TYPES,
        "text": "varchar(65535)",
        "texts": "varchar(65535)",
        "small": "integer",
        "money": "double precision",
        "time": "timestamp",
    },
    parameter=":{}",
    lock="LOCK TABLE {}",
    stage_lives=False,
    keeps_in_merge=False,
    json_lists=True,
    counts_bytes=True,
    now="timestamp NOT NULL DEFAULT GETDATE()",
    encodings={
        # What a table is sorted by is read to skip blocks: it should not have to be unpacked for that.
        **dict.fromkeys(("event_time", "time", "flag"), "RAW"),
        **dict.fromkeys(("small", "integer", "big", "money"), "AZ64"),
        **dict.fromkeys(("text", "texts", "double"), "ZSTD"),
        **dict.fromkeys(("decision", "model_id", "feature_set"), "BYTEDICT"),
    },
    fits={**_FITS, "texts": _TEXT},
    catalogue=(
        "SELECT column_name, data_type, character_maximum_length, is_nullable = 'NO' AND column_default IS NULL "
        "FROM information_schema.columns WHERE table_schema = :schema AND table_name = :table"
    ),
)
