"""Calls of AWS, made or only shown: `--dry_run` prints what would be called, checked against the service's model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.validate import ParamValidator

from io_connectors.aws import client, error_code, is_transient
from io_connectors.retry import Backoff
from transforms.errors import UserError

_READS = ("describe_", "get_", "list_", "head_")
#: What services answer where there is no such thing.
_ABSENT = frozenset(("404", "NoSuchKey", "NotFound", "ResourceNotFound", "ResourceNotFoundException"))


@dataclass(frozen=True)
class Calls:
    """Clients of AWS that make the calls they are told to.

    Attributes:
        region: where; None: as configured.
        dry_run: whether calls are printed instead, each as a line of JSON.
        say: prints a line.
        backoff: how long what may be repeated is.
        connect: gives the client of a service and region.
    """

    region: str | None = None
    dry_run: bool = False
    say: Callable[[str], None] = print
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.5, give_up_after=60.0))
    connect: Callable[[str, str | None], Any] = client
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """The client of a service, by boto3's name of it.

        Raises:
            UserError: no region is given or configured.
        """
        if service not in self._clients:
            self._clients[service] = self.connect(service, self.region)
        return self._clients[service]

    def __call__(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """What the service answers; nothing when calls are only printed.

        Reads, and puts of objects, are repeated when they fail in passing. Others are made once: a step that was
        added twice would be two jobs, a cluster that was created twice two bills.

        Args:
            service: boto3's name.
            operation: boto3's name, such as `add_job_flow_steps`.
            parameters: of the operation. A `Path` as a body is that file's content.

        Raises:
            UserError: a parameter is not what the service takes, or the service refused or did not answer.
        """
        try:
            return self._made(service, operation, parameters)
        except ClientError as error:
            raise UserError(f"{service} {operation}: {error}") from error

    def find(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """The same of a read; nothing where there is no such thing, or when calls are only printed."""
        try:
            return self._made(service, operation, parameters)
        except ClientError as error:
            # SageMaker calls some of what does not exist a validation error.
            if error_code(error) in _ABSENT or re.search("does not exist|could not find", str(error), re.IGNORECASE):
                return {}
            raise UserError(f"{service} {operation}: {error}") from error

    def _made(self, service: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        self._check(service, operation, parameters)
        if self.dry_run:
            shown = {"service": service, "operation": operation, "parameters": parameters}
            self.say(json.dumps(shown, default=str))
            return {}
        call = getattr(self.client(service), operation)

        def attempt() -> dict[str, Any]:
            body = parameters.get("Body")
            if not isinstance(body, Path):
                return dict(call(**parameters))
            with body.open("rb") as content:
                return dict(call(**{**parameters, "Body": content}))

        repeatable = operation.startswith((*_READS, "put_object"))
        try:
            return self.backoff.call(attempt, is_transient) if repeatable else attempt()
        except BotoCoreError as error:
            unknown = "" if repeatable else "; it may have been done all the same: look before you repeat it"
            raise UserError(f"{service} {operation}: {error}{unknown}") from error

    def _check(self, service: str, operation: str, parameters: Mapping[str, Any]) -> None:
        client = self.client(service)
        model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation])
        body = {"Body": b""} if isinstance(parameters.get("Body"), Path) else {}
        report = ParamValidator().validate({**parameters, **body}, model.input_shape)
        if report.has_errors():
            problem = ParamValidationError(report=report.generate_report())
            raise UserError(f"{service} {operation}: {' '.join(str(problem).split())}")
