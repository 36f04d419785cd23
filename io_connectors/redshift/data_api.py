"""Statements through Redshift's Data API: calls of AWS in place of a connection, each a transaction of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions
import msgspec

from io_connectors.aws import error_code, is_transient
from io_connectors.redshift.faults import fault_of
from io_connectors.retry import Backoff
from io_connectors.sql.faults import Fault
from transforms.hashing import text_digest

LOG = logging.getLogger(__name__)

Values = Mapping[str, str | int]

#: How long one call waits for a statement's end, in seconds.
_WAIT = 10
_RUNNING = frozenset(("SUBMITTED", "PICKED", "STARTED"))
#: How far clocks may differ.
_SKEW = timedelta(minutes=5)
_BUSY = frozenset(
    (
        "ActiveSessionsExceededException",
        "ActiveStatementsExceededException",
        "ActiveWaitingRequestsExceededException",
        "BatchExecuteStatementException",
        "ExecuteStatementException",
        "InternalServerException",
    )
)


class StatementFailedError(Exception):
    """A statement did not do what it should; its transaction was rolled back."""


class StatementTimeoutError(Exception):
    """A statement took too long and was cancelled."""


@dataclass
class DataApi:
    """Runs statements for the writer.

    Attributes:
        client: of boto3, `redshift-data`.
        where: the parameters that name cluster or workgroup, database and user.
        patience: seconds after which a statement is cancelled.
        backoff: its waits lie between two looks at a statement that runs.
        now: the time in UTC.
    """

    client: Any
    where: Mapping[str, str]
    patience: float
    backoff: Backoff
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _failures: dict[str, int] = field(default_factory=dict)

    def run(self, statements: Sequence[str], values: Values) -> None:
        """Run statements in one transaction.

        Calls with one token are one call to AWS, so a call whose answer was lost may be made again. The token depends
        on what is run, and on how often it has failed: else AWS would go on telling of the failure.

        Args:
            statements: at most 40.
            values: by the names that statements have in their place; each must be named.

        Raises:
            StatementFailedError: one failed, and with it all.
            StatementTimeoutError: they took too long.
            botocore.exceptions.ClientError: AWS did not take the call.
        """
        content = text_digest(msgspec.json.encode([*statements, *sorted(values.items())]))
        since = self.now() - _SKEW
        while True:
            token = f"{content}-{self._failures.get(content, 0)}"
            call = self.client.batch_execute_statement(
                Sqls=list(statements), ClientToken=token, StatementName="fraud-detection", **self._with(values)
            )
            done = self._wait(call["Id"])
            if done["Status"] == "FINISHED":
                self._failures.pop(content, None)
                return
            self._failures[content] = self._failures.get(content, 0) + 1
            if done["CreatedAt"] >= since:
                raise StatementFailedError(_cause(done))
            LOG.info("Redshift: a statement that failed at %s is run again", done["CreatedAt"])

    def query(self, statement: str, values: Values) -> list[tuple[Any, ...]]:
        """What a query gives.

        Raises:
            Exception: as for `run`.
        """
        call = self.client.execute_statement(Sql=statement, **self._with(values))
        done = self._wait(call["Id"])
        if done["Status"] != "FINISHED":
            raise StatementFailedError(_cause(done))
        pages = self.client.get_paginator("get_statement_result").paginate(Id=call["Id"])
        return [tuple(map(_value, record)) for page in pages for record in page["Records"]]

    def fault(self, error: Exception) -> Fault:
        """What an error of `run` or `query` means."""
        if isinstance(error, StatementTimeoutError) or error_code(error) in _BUSY or is_transient(error):
            return Fault.TRANSIENT
        if isinstance(error, StatementFailedError):
            return fault_of("", str(error))
        return Fault.REFUSED if error_code(error) else Fault.FINAL

    def reason(self, error: Exception) -> tuple[str, str]:
        """A short code for an error, and the words of whoever made it."""
        return error_code(error) or "redshift_error", str(error)

    def close(self) -> None:
        """Let go of the client."""
        self.client.close()

    def _with(self, values: Values) -> dict[str, Any]:
        if not values:
            return dict(self.where)
        return {**self.where, "Parameters": [{"name": name, "value": str(value)} for name, value in values.items()]}

    def _wait(self, statement_id: str) -> Any:
        """The description of a statement that has ended."""
        deadline = self.backoff.clock() + self.patience
        attempt = 0
        while True:
            try:
                found = self.client.describe_statement(Id=statement_id, WaitTimeSeconds=_WAIT)
                if found["Status"] not in _RUNNING:
                    return found
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                if self.fault(error) is not Fault.TRANSIENT or self.backoff.clock() >= deadline:
                    raise
            if self.backoff.clock() >= deadline:
                with suppress(botocore.exceptions.ClientError):  # it has ended meanwhile, and the ledger knows how
                    self.client.cancel_statement(Id=statement_id)
                raise StatementTimeoutError(f"statement {statement_id} was cancelled after {self.patience:.0f} s")
            self.backoff.wait(attempt, deadline)
            attempt += 1


def _cause(done: Any) -> str:
    """Why a statement did not finish: of several, the one that failed says most."""
    failed = [each for each in done.get("SubStatements", ()) if each.get("Error")]
    return str(failed[0]["Error"] if failed else done.get("Error") or f"the statement was {done['Status'].lower()}")


def _value(cell: Mapping[str, Any]) -> Any:
    """A cell of a result: AWS names its type, or that it is NULL."""
    return None if cell.get("isNull") else next(iter(cell.values()))
