"""`ddl`: print the statements that create the tables of a sink."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pyarrow as pa

from io_connectors.sql.columns import KEY
from io_connectors.sql.dialects import Dialect
from io_connectors.sql.layouts import rows_of
from io_connectors.sql.names import table_name
from io_connectors.sql.statements import Target, create_ledger, create_table
from model_artifacts.artifact import load_model
from transforms.errors import UserError
from transforms.features import FeatureSet, load_feature_set, shipped_feature_sets
from transforms.parse import parsed_fields
from transforms.schema import Schema, load_schema

_DOING = "Print the statements that create the tables of the sink."
_KAGGLE_NOTE = """\
-- The Kaggle credit-card set: time in seconds since its first transaction, 28 anonymous components, the amount, and
-- the label. The set has no id. transaction_id is made of the file's name and the row's number, so that a row written
-- again is known to be there; statements that name their columns need not know of it."""
_LEDGER_NOTE = """\
-- Which batches were written. A batch comes again within hours, if ever, so old lines may be deleted:
--     DELETE FROM {ledger} WHERE "loaded_at" < CURRENT_DATE - 30;"""


def main(dialect: Dialect, argv: Sequence[str]) -> int:
    """Print what creates the tables; 2 after a mistake of the user's."""
    options = _parser(dialect).parse_args(argv)
    try:
        print(_script(dialect, options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser(dialect: Dialect) -> argparse.ArgumentParser:
    program = dialect.command.removesuffix(" ddl")
    parser = argparse.ArgumentParser(prog=program, description=f"Tables for decisions in {dialect.name}.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="ddl")
    ddl = commands.add_parser("ddl", help=_DOING, description=_DOING, allow_abbrev=False)
    ddl.add_argument("--schema", metavar="NAME|FILE", help="of the transactions (default: the model's, or handbook)")
    ddl.add_argument("--model", metavar="NAME|DIR", help="whose features the table holds (default: the schema's)")
    ddl.add_argument("--features", metavar="NAME|FILE", help="the same, where there is no model yet")
    ddl.add_argument("--kaggle", action="store_true", help="fraud_detection(time, v1..v28, amount, class) instead")
    ddl.add_argument("--table", metavar="SCHEMA.TABLE", help="(default public.decisions, or public.fraud_detection)")
    return parser


def _script(dialect: Dialect, options: argparse.Namespace) -> str:
    schema_name, _, table = str(
        options.table or ("public.fraud_detection" if options.kaggle else "public.decisions")
    ).rpartition(".")
    if not schema_name:
        raise UserError(f"--table {options.table}: write SCHEMA.TABLE, such as public.decisions")
    name = table_name(schema_name, table, dialect.longest_name)
    fields, schema, note = _fields(options)
    layout = "kaggle" if options.kaggle else "decisions"
    rows = rows_of(pa.RecordBatch.from_pylist([], schema=pa.schema(fields)), layout, dialect.json_lists)
    target = Target(dialect, name, rows.columns, existing="keep", locked=True)
    held = {column.name for column in rows.columns}
    distribution = "customer_id" if "customer_id" in held and "customer_id" in schema.columns else KEY
    return "\n".join(
        [
            _KAGGLE_NOTE if options.kaggle else note,
            create_table(target, distribution) + ";",
            "",
            _LEDGER_NOTE.format(ledger=name.ledger),
            create_ledger(target) + ";",
        ]
    )


def _fields(options: argparse.Namespace) -> tuple[list[pa.Field], Schema, str]:
    """The columns of a decided batch, the schema they come from, and a line about them."""
    if options.model and options.features:
        raise UserError("--model and --features both name the features; give one")
    if options.kaggle:
        schema, features = load_schema("creditcard"), load_feature_set("creditcard")
    elif options.model:
        manifest = load_model(options.model).manifest
        schema, features = load_schema(options.schema or manifest.schema), manifest.feature_set
    else:
        schema = load_schema(options.schema or "handbook")
        features = load_feature_set(options.features) if options.features else _features_of(schema)
    fields = {field.name: field for field in parsed_fields(schema)}
    fields |= {name: pa.field(name, pa.float64()) for name in features.names}
    fields |= {field.name: field for field in _DECIDED}
    return list(fields.values()), schema, f"-- Decisions: schema {schema.name}, features of {features.name}."


#: What scoring and deciding add.
_DECIDED = (
    pa.field("score", pa.float64()),
    pa.field("model_id", pa.string()),
    pa.field("feature_set", pa.string()),
    pa.field("decision", pa.string()),
    pa.field("reasons", pa.list_(pa.string())),
)


def _features_of(schema: Schema) -> FeatureSet:
    """The features of the model that a schema is shipped with, or that could be trained for it."""
    if schema.default_model:
        return load_model(schema.default_model).manifest.feature_set
    if schema.name in shipped_feature_sets():
        return load_feature_set(schema.name)
    raise UserError(f"schema {schema.name} has no model of its own: name one with --model, or --features")
