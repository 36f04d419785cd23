"""Who we are to a database: passwords come from the environment or from AWS when we connect, never from a URL."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from transforms.errors import UserError

_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


class Credentials(NamedTuple):
    """A user and a password; None where the database's own client is to look for it."""

    user: str | None
    password: str | None


class _Secret(msgspec.Struct):
    """What Secrets Manager keeps of a database."""

    username: str
    password: str


def secret_credentials(arn: str, user: str | None, region: str | None, endpoint: str | None) -> Credentials:
    """The credentials in a secret of AWS Secrets Manager, of the form in which RDS and Redshift keep theirs.

    Args:
        arn: of the secret, or its name.
        user: when given, stands above the secret's.
        region, endpoint: as for `io_connectors.aws.client`.

    Raises:
        UserError: the secret is of another form. No message shows any of it.
    """
    from io_connectors.aws import client  # boto3 takes a second to import, and most databases need none of it

    secrets = client("secretsmanager", region, endpoint)
    try:
        content = secrets.get_secret_value(SecretId=arn).get("SecretString", "")
    finally:
        secrets.close()
    try:
        secret = msgspec.json.decode(content, type=_Secret)
    except msgspec.DecodeError:
        raise UserError(f'secret {arn} is not a JSON object with "username" and "password"') from None
    return Credentials(user or secret.username, secret.password)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that what is said to it passes no network.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("db.example.com")
        (True, False)
    """
    return _LOOPBACK.fullmatch(host) is not None
