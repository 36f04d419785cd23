"""Clients of AWS services: credentials and endpoints come from where AWS's own tools look for them."""

from __future__ import annotations

import os
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from io_connectors.urls import ConnectorUrl
from transforms.errors import UserError

#: Error codes that go away by themselves, whatever the service.
THROTTLED = frozenset(
    (
        "KMSThrottling",
        "KMSThrottlingException",
        "KmsThrottled",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    )
)


def client(service: str, region: str | None = None, endpoint: str | None = None, config: Config | None = None) -> Any:
    """A boto3 client.

    Credentials are those of the standard chain (environment, profile, role of the container or the instance), and
    never part of a URL. For a local server give `endpoint`, or set AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_<SERVICE>.
    The client makes one attempt a call: whoever calls it repeats what may be repeated, and counts it.

    Args:
        service: boto3's name of it, such as `dynamodb`.
        region: such as `eu-west-1`; None: as configured.
        endpoint: the server's address.
        config: more of botocore's settings.

    Raises:
        UserError: no region is given or configured, or the endpoint is no URL.
    """
    once = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60)
    try:
        session = boto3.session.Session()  # one of its own: the default session is not safe to share among threads
        # Containers set AWS_REGION; boto3, alone among AWS's tools, looks at AWS_DEFAULT_REGION only.
        region = region or session.region_name or os.environ.get("AWS_REGION")
        return session.client(
            service, region_name=region, endpoint_url=endpoint, config=once.merge(config) if config else once
        )
    except ValueError as error:
        raise UserError(
            f"{service}: endpoint must be a URL such as http://127.0.0.1:9000; found {endpoint!r} ({error})"
        ) from error
    except botocore.exceptions.NoRegionError as error:
        raise UserError(f"{service}: no AWS region; give ?region= in the URL, or set AWS_REGION") from error


def client_of(url: ConnectorUrl, service: str, config: Config | None = None) -> Any:
    """The client a URL's parameters `region` and `endpoint` ask for; see `client`."""
    return client(service, url.parameters.get("region"), url.parameters.get("endpoint"), config)


def error_code(error: Exception) -> str:
    """AWS's code of an error, such as `AccessDeniedException`; empty where the call got no answer."""
    if isinstance(error, botocore.exceptions.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def is_transient(error: Exception) -> bool:
    """Whether a failed call may succeed when it is made again: throttled, out of reach, or the server's own fault.

    Example:
        >>> slow = botocore.exceptions.ClientError({"Error": {"Code": "SlowDown"}}, "PutObject")
        >>> denied = botocore.exceptions.ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject")
        >>> is_transient(slow), is_transient(denied)
        (True, False)
    """
    if isinstance(error, botocore.exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in THROTTLED or status >= 500
    return isinstance(error, (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError))
