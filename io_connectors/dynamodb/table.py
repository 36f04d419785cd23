"""The table: found, checked, and made when asked for."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from io_connectors.aws import error_code, is_transient
from io_connectors.delivery import OnRetry
from io_connectors.dynamodb.items import EXPIRES_AT, KEY
from io_connectors.retry import Backoff
from transforms.errors import UserError

_LOGGER = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_CAPACITY = re.compile(r"([1-9]\d*):([1-9]\d*)", re.ASCII)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """What the sink needs of its table.

    Attributes:
        name: of the table.
        expires: whether items have a time of expiry that DynamoDB is to heed.
        create: whether to make the table when there is none.
        capacity: of a table that is made: `ondemand`, or `READ:WRITE` units a second.
    """

    name: str
    expires: bool = False
    create: bool = False
    capacity: str = "ondemand"

    def check(self) -> None:
        """Refuse what no table can be.

        Raises:
            UserError: the name, or the capacity.
        """
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"dynamodb: {self.name!r} is no name of a table: 3 to 255 letters, digits, hyphens, dots, underscores"
            )
        if self.capacity != "ondemand" and not _CAPACITY.fullmatch(self.capacity):
            raise UserError(
                f"dynamodb: capacity must be ondemand, or read and write units such as 5:100; found {self.capacity!r}"
            )


class _NotYetError(Exception):
    """What was asked for is under way."""


def make_ready(client: Any, table: Table, backoff: Backoff, on_retry: OnRetry) -> None:
    """Find the table fit to be written, or make it so; harmless when others do the same at the same time.

    Args:
        client: of DynamoDB.
        table: what is needed.
        backoff: how often a call is made again, and how long a table may take to come up.
        on_retry: told of each call that is made again.

    Raises:
        UserError: there is no such table and it is not to be made, its key is another, or its items would not expire.
    """

    def call(action: Callable[[], Result]) -> Result:
        return backoff.call(action, lambda error: isinstance(error, _NotYetError) or is_transient(error), on_retry)

    made = False
    if call(lambda: _describe(client, table.name)) is None:
        if not table.create:
            raise UserError(
                f"dynamodb: there is no table {table.name}; add create=true to the URL, or run: aws dynamodb "
                f"create-table --table-name {table.name} --attribute-definitions AttributeName={KEY},AttributeType=S "
                f"--key-schema AttributeName={KEY},KeyType=HASH --billing-mode PAY_PER_REQUEST"
            )
        made = call(lambda: _create(client, table))
    _check_key(call(lambda: _usable(client, table.name)))
    if table.expires:
        call(lambda: _expire(client, table))
    if made:
        call(lambda: _keep_backups(client, table.name))


def _describe(client: Any, name: str) -> Any:
    try:
        return client.describe_table(TableName=name)["Table"]
    except client.exceptions.ResourceNotFoundException:
        return None


def _create(client: Any, table: Table) -> bool:
    """Make the table, unless somebody else just did; whether it was us."""
    billing: dict[str, Any] = {"BillingMode": "PAY_PER_REQUEST"}
    if units := _CAPACITY.fullmatch(table.capacity):
        throughput = {"ReadCapacityUnits": int(units[1]), "WriteCapacityUnits": int(units[2])}
        billing = {"BillingMode": "PROVISIONED", "ProvisionedThroughput": throughput}
    try:
        client.create_table(
            TableName=table.name,
            AttributeDefinitions=[{"AttributeName": KEY, "AttributeType": "S"}],
            KeySchema=[{"AttributeName": KEY, "KeyType": "HASH"}],
            **billing,
        )
    except client.exceptions.ResourceInUseException:
        return False
    return True


def _usable(client: Any, name: str) -> Any:
    """The description of a table that can be written."""
    found = _describe(client, name)
    if found is None or found["TableStatus"] == "CREATING":
        raise _NotYetError(f"dynamodb: table {name} is being created")
    if found["TableStatus"] not in ("ACTIVE", "UPDATING"):
        raise UserError(f"dynamodb: table {name} cannot be written: its status is {found['TableStatus']}")
    return found


def _check_key(found: Any) -> None:
    types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
    key = [f"{each['AttributeName']} ({types[each['AttributeName']]})" for each in found["KeySchema"]]
    if key != [f"{KEY} (S)"]:
        raise UserError(
            f"dynamodb: the key of table {found['TableName']} is {', '.join(key)}; it must be {KEY} (S) alone: "
            "name another table, or let create=true make one"
        )


def _expire(client: Any, table: Table) -> None:
    """See to it that DynamoDB removes items when their time has come."""
    told = client.describe_time_to_live(TableName=table.name)["TimeToLiveDescription"]
    if told["TimeToLiveStatus"] in ("ENABLED", "ENABLING"):
        if told["AttributeName"] != EXPIRES_AT:
            raise UserError(
                f"dynamodb: items of table {table.name} expire by {told['AttributeName']}, not by {EXPIRES_AT}; "
                "leave ttl out of the URL, or name another table"
            )
        return
    if not table.create:
        raise UserError(
            f"dynamodb: ttl is given, but table {table.name} lets nothing expire; add create=true to the URL, or run: "
            f"aws dynamodb update-time-to-live --table-name {table.name} "
            f"--time-to-live-specification Enabled=true,AttributeName={EXPIRES_AT}"
        )
    try:
        client.update_time_to_live(
            TableName=table.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES_AT}
        )
    except client.exceptions.ClientError as error:
        # It says so when somebody else has just done it, or when it is being done: look again.
        if error_code(error) in ("ValidationException", "ResourceInUseException"):
            raise _NotYetError(f"dynamodb: expiry of table {table.name}: {error}") from error
        raise


def _keep_backups(client: Any, name: str) -> None:
    """Have DynamoDB keep what is needed to restore the table as it was at any second of the last 35 days."""
    try:
        client.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
    except client.exceptions.ContinuousBackupsUnavailableException as error:
        raise _NotYetError(f"dynamodb: backups of table {name}: {error}") from error
    except client.exceptions.ClientError as error:
        if error_code(error) != "UnknownOperationException":
            raise
        _LOGGER.warning("dynamodb: table %s was made without point-in-time recovery: this server has none", name)
