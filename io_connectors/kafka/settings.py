"""What Kafka URLs say: where the brokers are, how to be let in, what to read or write. Nothing here is secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from io_connectors.moments import EARLIEST, Moment, moment_of
from io_connectors.urls import ConnectorUrl, Scheme
from transforms.durations import SECOND
from transforms.errors import UserError

_CONNECTION = (
    "client",
    "security",
    "mechanism",
    "ca",
    "certificate",
    "key",
    "secret",
    "region",
    "endpoint",
)
_PLACE = "host:port[,host:port]/topic"
KAFKA_SOURCE = Scheme(
    _PLACE,
    (
        "start",
        "until",
        "max_records",
        "max_duration",
        "group",
        "isolation",
        "on_missing",
        "watermark_delay",
        "discover",
        *_CONNECTION,
    ),
)
KAFKA_SINK = Scheme(_PLACE, ("compression", *_CONNECTION))
KAFKA_DECISIONS = Scheme(_PLACE, ("columns", *KAFKA_SINK.parameters))

#: Clients by the name of the module they are imported as, the preferred one first.
CLIENTS = {"confluent": "confluent_kafka", "kafka-python": "kafka"}
SECURITIES = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
PASSWORD_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
MECHANISMS = (*PASSWORD_MECHANISMS, "AWS_MSK_IAM")
ISOLATIONS = ("read_committed", "read_uncommitted")
COMPRESSIONS = ("lz4", "zstd", "snappy", "gzip", "none")

_BROKERS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is, and how to be let in.

    Attributes:
        brokers: `host:port`, several with commas between them.
        client: one of `CLIENTS`.
        security: one of `SECURITIES`.
        mechanism: one of `MECHANISMS` with sasl, else None.
        ca, certificate, key: files in PEM format, or None.
        secret: name or ARN of a secret of AWS Secrets Manager with username and password, or None.
        region, endpoint: of AWS, or None for what is configured.
    """

    brokers: str
    client: str = "confluent"
    security: str = "plaintext"
    mechanism: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    secret: str | None = None
    region: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True)
class ReadSettings:
    """What a URL says of reading.

    Attributes:
        cluster: where.
        topic: what.
        start: where reading begins in the partitions there are when it begins; those that come later are read whole.
        until: where it ends; None: nowhere.
        max_records: how many offsets are read at most, over all partitions; None: no such end.
        max_duration: microseconds after which reading ends; None: no such end.
        group: in whose name offsets are committed, for monitoring; None: they are not.
        isolation: `read_committed` or `read_uncommitted`.
        skip_missing: whether offsets that the log has lost are passed over, and counted, instead of an error.
        watermark_delay: microseconds that a record may come after one with a later timestamp.
        discover: microseconds between two looks for new partitions.
        batch_rows: most records of a batch.
    """

    cluster: Cluster
    topic: str
    start: Moment = EARLIEST
    until: Moment | None = None
    max_records: int | None = None
    max_duration: int | None = None
    group: str | None = None
    isolation: str = "read_committed"
    skip_missing: bool = False
    watermark_delay: int = 2 * SECOND
    discover: int = 10 * SECOND
    batch_rows: int = 10_000

    @property
    def bounded(self) -> bool:
        """Whether reading ends by itself."""
        return not (self.until is None and self.max_records is None and self.max_duration is None)


@dataclass(frozen=True)
class WriteSettings:
    """What a URL says of writing.

    Attributes:
        cluster: where.
        topic: what.
        compression: one of `COMPRESSIONS`.
    """

    cluster: Cluster
    topic: str
    compression: str = "lz4"


def read_settings(url: ConnectorUrl, batch_rows: int) -> ReadSettings:
    """What a source's URL says.

    Raises:
        UserError: something in it is wrong.
    """
    cluster, topic = _cluster(url)
    return ReadSettings(
        cluster=cluster,
        topic=topic,
        start=moment_of(url, "start", ("earliest", "latest")),
        until=moment_of(url, "until", ("latest",)) if "until" in url.parameters else None,
        max_records=url.integer("max_records", 0, least=1) or None,
        max_duration=url.duration("max_duration"),
        group=url.parameters.get("group"),
        isolation=url.choice("isolation", ISOLATIONS, ISOLATIONS[0]),
        skip_missing=url.choice("on_missing", ("fail", "skip"), "fail") == "skip",
        watermark_delay=url.duration("watermark_delay", 2 * SECOND, least=0) or 0,
        discover=url.duration("discover", least=SECOND) or 10 * SECOND,
        batch_rows=batch_rows,
    )


def write_settings(url: ConnectorUrl) -> WriteSettings:
    """What a sink's URL says.

    Raises:
        UserError: something in it is wrong.
    """
    cluster, topic = _cluster(url)
    return WriteSettings(cluster, topic, url.choice("compression", COMPRESSIONS, COMPRESSIONS[0]))


def _cluster(url: ConnectorUrl) -> tuple[Cluster, str]:
    brokers, _, topic = url.path.partition("/")
    for broker in brokers.split(","):
        if not _BROKERS.fullmatch(broker):
            raise UserError(f"{url}: {broker!r} is no host:port; write kafka://{_PLACE}")
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise UserError(f"{url}: {topic!r} is no name of a topic; write kafka://{_PLACE}")
    security = url.choice("security", SECURITIES, SECURITIES[0])
    mechanism = _mechanism(url, security)
    files = {name: _file(url, name) for name in ("ca", "certificate", "key")}
    if security not in ("ssl", "sasl_ssl") and any(files.values()):
        names = " and ".join(name for name, path in files.items() if path)
        raise UserError(f"{url}: {names} would not be used with security={security}; say security=ssl or sasl_ssl")
    if (files["certificate"] is None) != (files["key"] is None):
        raise UserError(f"{url}: a client's certificate needs its key and the other way round: certificate= and key=")
    if "secret" in url.parameters and mechanism not in PASSWORD_MECHANISMS:
        raise UserError(f"{url}: secret= holds a username and a password, which only {_or(PASSWORD_MECHANISMS)} take")
    cluster = Cluster(
        brokers=brokers,
        client=_client(url),
        security=security,
        mechanism=mechanism,
        **files,
        secret=url.parameters.get("secret"),
        region=url.parameters.get("region"),
        endpoint=url.parameters.get("endpoint"),
    )
    return cluster, topic


def _mechanism(url: ConnectorUrl, security: str) -> str | None:
    if not security.startswith("sasl"):
        if "mechanism" in url.parameters:
            raise UserError(f"{url}: mechanism= would not be used with security={security}; say security=sasl_ssl")
        return None
    if "mechanism" not in url.parameters:
        raise UserError(f"{url}: security={security} needs mechanism={_or(MECHANISMS)}")
    mechanism = url.choice("mechanism", MECHANISMS, "")
    if mechanism == "AWS_MSK_IAM" and security != "sasl_ssl":
        raise UserError(f"{url}: AWS_MSK_IAM needs security=sasl_ssl")
    return mechanism


def _client(url: ConnectorUrl) -> str:
    """The client that was asked for, or the first that is installed."""
    if "client" in url.parameters:
        client = url.choice("client", tuple(CLIENTS), "")
        if find_spec(CLIENTS[client]) is None:
            raise UserError(f"{url}: the client {client} is not installed; pip install {CLIENTS[client]}")
        return client
    for client, module in CLIENTS.items():
        if find_spec(module) is not None:
            return client
    raise UserError(f"{url}: no client of Kafka is installed; pip install confluent-kafka or kafka-python")


def _file(url: ConnectorUrl, name: str) -> str | None:
    path = url.parameters.get(name)
    if path is not None and not Path(path).is_file():
        raise UserError(f"{url}: {name}={path}: there is no such file")
    return path


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
