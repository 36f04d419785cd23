from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sqlglot
from sqlglot import exp

from io_connectors.redshift.staging import copy_statement
from io_connectors.sql.columns import Column
from io_connectors.sql.dialects import POSTGRESQL, REDSHIFT
from io_connectors.sql.names import LONGEST_POSTGRESQL, TableName, check_name, quoted, table_name
from io_connectors.sql.statements import Target, add_columns, create_ledger, create_table
from transforms.errors import UserError

COLUMNS = (
    Column("transaction_id", "text"),
    Column("event_time", "time"),
    Column("amount", "money"),
    Column("is_fraud", "small"),
    Column("late", "flag"),
    Column("score", "double"),
    Column("reasons", "texts"),
)
TARGET = Target(REDSHIFT, TableName("public", "decisions"), COLUMNS, "keep", locked=True)
MANIFEST, ROLE = "s3://bucket/staging/0f.manifest", "arn:aws:iam::123456789012:role/load"


def transaction(target: Target) -> list[str]:
    return [*target.before, copy_statement(target, MANIFEST, ROLE), *target.after]


def parsed(statement: str) -> exp.Expr:
    """A statement as Redshift's own grammar has it; what is no statement of Redshift's raises."""
    return sqlglot.parse_one(statement, read="redshift")


@pytest.mark.parametrize("existing", ["keep", "replace"])
def test_the_statements_of_a_batch_are_redshifts(existing: str) -> None:
    """Each parses in Redshift's dialect as what it is meant to be, in the order in which they must run."""
    lock, *statements = transaction(replace(TARGET, existing=existing))
    assert lock == 'LOCK TABLE "public"."decisions"'  # a parser has no word for it
    removals = [exp.Delete] * (3 if existing == "keep" else 1)
    kinds = [exp.Create, exp.Copy, *removals, exp.Merge, exp.Insert, exp.Drop]
    assert [type(parsed(statement)) for statement in statements] == kinds
    assert len(statements) < 40  # of one call of the Data API


def test_merge_is_what_redshift_takes() -> None:
    """The source is a table, the target has no other name, and both branches are there, the first an UPDATE."""
    merge = next(tree for tree in map(parsed, transaction(TARGET)[1:]) if isinstance(tree, exp.Merge))
    assert isinstance(merge.args["using"], exp.Table)
    assert merge.args["using"].name == TARGET.stage.strip('"')
    assert merge.this.alias == ""
    assert isinstance(merge.args["on"], exp.EQ)
    branches = merge.args["whens"].expressions
    assert [(branch.args["matched"], type(branch.args["then"])) for branch in branches] == [
        (True, exp.Update),
        (False, exp.Insert),
    ]


def test_copy_names_a_role_and_no_key() -> None:
    """What COPY is told: the manifest, the format, and a role that Redshift takes on."""
    copy = parsed(copy_statement(TARGET, MANIFEST, ROLE))
    assert isinstance(copy, exp.Copy)
    assert [file.name for file in copy.args["files"]] == [MANIFEST]
    assert copy.find(exp.Credentials).args["iam_role"].name == ROLE  # type: ignore[union-attr]
    said = copy_statement(TARGET, MANIFEST, ROLE)
    assert re.search("PARQUET MANIFEST$", said)
    assert not re.search("ACCESS_KEY|CREDENTIALS|SESSION_TOKEN", said, re.IGNORECASE)
    assert "IAM_ROLE DEFAULT" in copy_statement(TARGET, MANIFEST, "default")


def test_redshifts_tables_are_spread_and_sorted() -> None:
    """By customer, and by time, each column with an encoding that its type can have."""
    table = parsed(create_table(TARGET, "customer_id"))
    assert table.find(exp.DistKeyProperty).name == "customer_id"  # type: ignore[union-attr]
    sort_key = table.find(exp.SortKeyProperty)
    assert sort_key is not None
    assert [column.name for column in sort_key.this] == ["event_time"]
    encodings = {each.name: each.find(exp.EncodeColumnConstraint) for each in table.find_all(exp.ColumnDef)}
    assert set(encodings) == {column.name for column in COLUMNS}
    said = {name: str(each.this) for name, each in encodings.items() if each}
    assert said["event_time"] == said["late"] == "RAW"
    assert said["amount"] == said["is_fraud"] == "AZ64"  # of numbers and times alone
    assert said["transaction_id"] == said["score"] == "ZSTD"
    assert isinstance(parsed(create_ledger(TARGET)), exp.Create)
    assert isinstance(parsed(add_columns(TARGET, ["score"])[0]), exp.Alter)


def test_values_are_bound() -> None:
    """A batch's id and size have places in statements, by the names that their database knows."""
    for dialect, places in ((REDSHIFT, (":batch_id", ":rows")), (POSTGRESQL, ("%(batch_id)s", "%(rows)s"))):
        after = replace(TARGET, dialect=dialect, locked=False).after
        assert all(any(place in statement for statement in after) for place in places)
        assert not any("%" in re.sub(r"%\(\w+\)s", "", statement) for statement in after)


def test_redshift_writers_wait_for_each_other_before_they_look() -> None:
    """The lock comes first, so that all after it sees what the last writer did; the ledger is in the transaction."""
    statements = transaction(TARGET)
    assert statements[0].startswith("LOCK TABLE")
    assert statements[-2].startswith('INSERT INTO "public"."decisions_batches"')
    assert statements[-1] == f"DROP TABLE {TARGET.stage}"


def test_postgresql_waits_only_without_a_unique_index() -> None:
    """With one, a second writer of a row fails, and tries again."""
    target = replace(TARGET, dialect=POSTGRESQL)
    assert target.before[0] == 'LOCK TABLE "public"."decisions" IN SHARE ROW EXCLUSIVE MODE'
    assert not any("LOCK" in statement for statement in replace(target, locked=False).before)


def test_staging_tables_of_other_columns_have_other_names() -> None:
    """A session may hold several, and a table that lives on is never taken for one of other columns."""
    stages = {replace(TARGET, columns=COLUMNS[:count]).stage for count in range(1, len(COLUMNS) + 1)}
    assert len(stages) == len(COLUMNS)
    assert all(re.fullmatch('"[a-z0-9_]{1,63}"', stage) for stage in stages)


@pytest.mark.parametrize(
    "name",
    ["", "1a", "A", "a b", 'a"b', "a;b", "a.b", "a-b", "ä", "a\n", "a\0", "x" * 128, 'x" ; DROP TABLE y; --'],
)
def test_a_name_that_could_be_more_is_refused(name: str) -> None:
    """Nothing leaves its quotation marks."""
    with pytest.raises(UserError, match="a name in the database"):
        quoted(name)


@pytest.mark.parametrize("name", ["a", "_", "a1$", "time", "select", "x" * 127])
def test_any_other_name_stands_in_quotation_marks(name: str) -> None:
    """Also one that SQL has a meaning for."""
    assert quoted(name) == f'"{name}"'


def test_a_table_leaves_room_for_its_ledgers_name() -> None:
    """PostgreSQL would cut the longer name without a word, and two tables might get one ledger."""
    longest = "x" * (LONGEST_POSTGRESQL - len("_batches"))
    assert len(table_name("public", longest, LONGEST_POSTGRESQL).ledger.name) == LONGEST_POSTGRESQL
    with pytest.raises(UserError, match="at most 55 characters"):
        table_name("public", longest + "x", LONGEST_POSTGRESQL)
    with pytest.raises(UserError, match="schema 'A'"):
        table_name("A", "x", LONGEST_POSTGRESQL)
    assert check_name("x" * 63, LONGEST_POSTGRESQL, "column")
