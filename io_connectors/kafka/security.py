"""What lets clients in. Secrets are read where a client is made, from the environment or from AWS, and kept nowhere.

| | from |
| --- | --- |
| username and password of SCRAM and PLAIN | `KAFKA_USERNAME` and `KAFKA_PASSWORD`, or a secret of AWS Secrets Manager |
| MSK IAM | the standard chain of AWS credentials |
| TLS | files named in the URL |
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from io_connectors.kafka.clients import Refusal
from io_connectors.kafka.settings import PASSWORD_MECHANISMS, Cluster
from transforms.errors import UserError

USERNAME, PASSWORD = "KAFKA_USERNAME", "KAFKA_PASSWORD"
TOKEN_SECONDS = 900


class Login(NamedTuple):
    """A username and its password."""

    username: str
    password: str


class _Secret(msgspec.Struct):
    """What MSK wants a secret whose name begins with `AmazonMSK_` to hold."""

    username: str
    password: str


class Token(NamedTuple):
    """What proves to MSK who one is.

    Attributes:
        text: to send.
        expires: when it stops being good, in seconds since 1970.
    """

    text: str
    expires: float


def login(cluster: Cluster, environment: Mapping[str, str] = os.environ) -> Login:
    """The username and password of a cluster.

    Raises:
        UserError: they are not there.
    """
    if cluster.secret is not None:
        return _from_secrets_manager(cluster)
    missing = [name for name in (USERNAME, PASSWORD) if not environment.get(name)]
    if missing:
        raise UserError(
            f"kafka://{cluster.brokers}: {cluster.mechanism} needs {' and '.join(missing)} in the environment, "
            "or secret= with the name of a secret of AWS Secrets Manager"
        )
    return Login(environment[USERNAME], environment[PASSWORD])


def how_to_get_in(cluster: Cluster, what: Refusal) -> str:
    """What to check when brokers refuse, for messages."""
    if what == "right":
        return "an access control list, or a policy, must allow it"
    if what == "certificate":
        return "check ca=, certificate= and key=, and whether the brokers speak TLS at that port"
    if cluster.mechanism in PASSWORD_MECHANISMS:
        return f"check {f'the secret {cluster.secret}' if cluster.secret else f'{USERNAME} and {PASSWORD}'}"
    return "check the AWS credentials, their policy (kafka-cluster:Connect) and region="


def _from_secrets_manager(cluster: Cluster) -> Login:
    import botocore.exceptions

    from io_connectors.aws import client

    manager = client("secretsmanager", cluster.region, cluster.endpoint)
    try:
        text = manager.get_secret_value(SecretId=cluster.secret)["SecretString"]
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise UserError(f"kafka://{cluster.brokers}: secret={cluster.secret} cannot be read: {error}") from error
    finally:
        manager.close()
    try:
        secret = msgspec.json.decode(text, type=_Secret)
    except msgspec.DecodeError:  # whose text would repeat what it found
        form = '{"username": ..., "password": ...}'
        raise UserError(f"kafka://{cluster.brokers}: secret={cluster.secret} is not of the form {form}") from None
    return Login(secret.username, secret.password)


def msk_token(cluster: Cluster, now: float | None = None) -> Token:
    """A token for MSK: the address of the call `kafka-cluster:Connect`, signed as AWS signs its requests (SigV4).

    Raises:
        UserError: there are no AWS credentials, or no region.
    """
    import botocore.session
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    session = botocore.session.get_session()
    region = cluster.region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
    credentials = session.get_credentials()
    if not region or credentials is None:
        missing = "region: give ?region= in the URL, or set AWS_REGION" if not region else "credentials in sight"
        raise UserError(f"kafka://{cluster.brokers}: AWS_MSK_IAM: no AWS {missing}")
    request = AWSRequest("GET", f"https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect")
    SigV4QueryAuth(credentials.get_frozen_credentials(), "kafka-cluster", region, TOKEN_SECONDS).add_auth(request)
    signed = f"{request.url}&User-Agent=fraud-detection"
    expires = (time.time() if now is None else now) + TOKEN_SECONDS
    return Token(base64.urlsafe_b64encode(signed.encode()).decode().rstrip("="), expires)
