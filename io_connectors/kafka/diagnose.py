"""Why brokers cannot be spoken to, where the client does not say."""

from __future__ import annotations

import socket
import ssl

from io_connectors.kafka.clients import RefusedError, UnreachableError
from io_connectors.kafka.settings import Cluster

_SECONDS = 3.0


def diagnose(cluster: Cluster, said: str) -> RefusedError | UnreachableError:
    """What keeps a client from the first broker of a cluster that takes connections.

    Args:
        cluster: whose brokers did not answer.
        said: what the client said of it.
    """
    failures = []
    for broker in cluster.brokers.split(","):
        host, _, port = broker.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS) as connection:
                return _of_connection(cluster, connection, broker, host.strip("[]"), said)
        except OSError as error:
            failures.append(f"{broker}: {error.strerror or error}")
    return UnreachableError("; ".join(failures))


def _of_connection(
    cluster: Cluster, connection: socket.socket, broker: str, host: str, said: str
) -> RefusedError | UnreachableError:
    if cluster.security in ("ssl", "sasl_ssl"):
        try:
            context = ssl.create_default_context(cafile=cluster.ca)
            if cluster.certificate is not None:
                context.load_cert_chain(cluster.certificate, cluster.key)
            context.wrap_socket(connection, server_hostname=host).close()
        except (ssl.SSLError, OSError) as error:
            return RefusedError(f"{broker}: {error}", "certificate")
    if cluster.mechanism is not None:
        return RefusedError(f"{broker} takes connections, but no login with {cluster.mechanism}: {said}", "login")
    return UnreachableError(f"something listens at {broker}, but does not answer as a broker does: {said}")
