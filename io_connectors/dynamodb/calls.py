"""The calls that put items into a table, and what becomes of each item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from io_connectors.aws import error_code, is_transient
from io_connectors.delivery import Refused
from io_connectors.dynamodb.items import ITEM_BYTES, KEY, Item, item_bytes

ITEMS_PER_CALL = 25  # of both batch calls
_STATEMENT = 8192  # characters of the longest PartiQL statement

_THERE_ALREADY = ("DuplicateItem", "ConditionalCheckFailed")
_AGAIN = (
    "InternalServerError",
    "ProvisionedThroughputExceeded",
    "RequestLimitExceeded",
    "ThrottlingError",
    "TransactionConflict",
)
_NEVER = ("ValidationError", "ItemCollectionSizeLimitExceeded")


class Row(NamedTuple):
    """An item and its place in the batch."""

    at: int
    item: Item


class Outcome(NamedTuple):
    """What became of the rows of a call; those not named are in the table.

    Attributes:
        again: could not be written now.
        refused: never can be.
        error: why not now.
    """

    again: list[Row]
    refused: list[Refused]
    error: Exception | None = None


#: One attempt to write some rows, at most `ITEMS_PER_CALL` with ids that differ.
Call = Callable[[Any, str, Sequence[Row]], Outcome]


def insert(client: Any, table: str, rows: Sequence[Row]) -> Outcome:
    """Write what is not there yet; an item that is there stays as it is.

    PartiQL's INSERT is a conditional write, and 25 go in one call. Each costs the write units of its item, as a
    conditional PutItem does, also where the item is there already.

    Raises:
        Exception: the call as a whole failed.
    """
    statements = [_statement(table, tuple(row.item)) for row in rows]
    if max(map(len, statements)) > _STATEMENT:
        return put_each(client, table, rows, keep=True)
    try:
        answer = client.batch_execute_statement(
            Statements=[
                {"Statement": statement, "Parameters": list(row.item.values())}
                for statement, row in zip(statements, rows, strict=True)
            ]
        )
    except ClientError as error:
        if not _is_invalid(error):
            raise
        return put_each(client, table, rows, keep=True)  # one of them is at fault
    return _sorted_out(rows, answer["Responses"])


def _sorted_out(rows: Sequence[Row], responses: Sequence[dict[str, Any]]) -> Outcome:
    """What the answers to the statements of a call, one a row, say of the rows."""
    again: list[Row] = []
    refused: list[Refused] = []
    failure: Exception | None = None
    for row, response in zip(rows, responses, strict=True):
        error = response.get("Error")
        if error is None or error["Code"] in _THERE_ALREADY:
            continue
        why = ClientError({"Error": error}, "BatchExecuteStatement")
        if error["Code"] in _AGAIN:
            again.append(row)
            failure = why
        elif error["Code"] in _NEVER:
            refused.append(_refused(row, error.get("Message", error["Code"])))
        else:
            raise why
    return Outcome(again, refused, failure)


def replace(client: Any, table: str, rows: Sequence[Row]) -> Outcome:
    """Write every item over what may be there.

    Raises:
        Exception: the call as a whole failed.
    """
    try:
        answer = client.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": row.item}} for row in rows]})
    except ClientError as error:
        if not _is_invalid(error):
            raise
        return put_each(client, table, rows, keep=False)  # one of them is at fault
    left = {each["PutRequest"]["Item"][KEY]["S"] for each in answer.get("UnprocessedItems", {}).get(table, ())}
    again = [row for row in rows if row.item[KEY]["S"] in left]
    why = {"Error": {"Code": "UnprocessedItems", "Message": f"{len(again)} of {len(rows)} items were not written"}}
    return Outcome(again, [], ClientError(why, "BatchWriteItem") if again else None)


def put_each(client: Any, table: str, rows: Sequence[Row], keep: bool) -> Outcome:
    """Write items one by one: slower, and no item is at another's mercy.

    Args:
        keep: whether an item that is there stays as it is.

    Raises:
        Exception: something is wrong that no other attempt and no other item will mend.
    """
    condition = {"ConditionExpression": f"attribute_not_exists({KEY})"} if keep else {}
    again: list[Row] = []
    refused: list[Refused] = []
    failure: Exception | None = None
    for row in rows:
        try:
            client.put_item(TableName=table, Item=row.item, **condition)
        except Exception as error:
            if error_code(error) == "ConditionalCheckFailedException":
                continue
            if _is_invalid(error):
                refused.append(_refused(row, str(error)))
            elif is_transient(error):
                again.append(row)
                failure = error
            else:
                raise
    return Outcome(again, refused, failure)


@lru_cache(maxsize=1024)
def _statement(table: str, names: tuple[str, ...]) -> str:
    """INSERT of an item with these attributes, whose values are parameters."""
    quoted = ("'" + name.replace("'", "''") + "': ?" for name in names)
    return f'INSERT INTO "{table}" VALUE {{{", ".join(quoted)}}}'


def _is_invalid(error: Exception) -> bool:
    """Whether a call will never be taken because of what is in it."""
    if not isinstance(error, ClientError):
        return False
    too_much = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 413
    return too_much or error_code(error) in ("ValidationException", "ItemCollectionSizeLimitExceededException")


def _refused(row: Row, message: str) -> Refused:
    size = item_bytes(row.item)
    if size > ITEM_BYTES:
        return Refused(row.at, "item_too_large", f"the item has about {size:,} bytes; DynamoDB takes {ITEM_BYTES:,}")
    return Refused(row.at, "item_invalid", f"DynamoDB refuses the item: {message}")
