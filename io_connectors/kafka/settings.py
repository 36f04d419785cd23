"""What Kafka URLs say: where the brokers are, how to be let in, what to read or write. Nothing here is secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from io_connectors.urls import ConnectorUrl, Scheme
from transforms.durations import SECOND, parse_duration
from transforms.errors import UserError, did_you_mean

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

#: Clients by the name of the module they are imported as, the preferred one first.
CLIENTS = {"confluent": "confluent_kafka", "kafka-python": "kafka"}
SECURITIES = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
PASSWORD_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
MECHANISMS = (*PASSWORD_MECHANISMS, "AWS_MSK_IAM")
COMPRESSIONS = ("zstd", "lz4", "snappy", "gzip", "none")

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
class Moment:
    """Where reading starts or ends: at one end of the log, or at a time.

    Attributes:
        word: `earliest`, `latest` or `timestamp`.
        millis: of a timestamp, since 1970.
    """

    word: str
    millis: int = 0


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
    start: Moment = Moment("earliest")
    until: Moment | None = None
    max_records: int | None = None
    max_duration: int | None = None
    group: str | None = None
    isolation: str = "read_committed"
    skip_missing: bool = False
    watermark_delay: int = 0
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
    compression: str = "zstd"


def read_settings(url: ConnectorUrl, batch_rows: int) -> ReadSettings:
    """What a source's URL says.

    Raises:
        UserError: something in it is wrong.
    """
    cluster, topic = _cluster(url)
    until = _moment(url, "until", ("latest",)) if "until" in url.parameters else None
    return ReadSettings(
        cluster=cluster,
        topic=topic,
        start=_moment(url, "start", ("earliest", "latest")),
        until=until,
        max_records=url.integer("max_records", 0, least=1) or None,
        max_duration=_duration(url, "max_duration", 0, least=1) or None,
        group=_group(url),
        isolation=_choice(url, "isolation", ("read_committed", "read_uncommitted")),
        skip_missing=_choice(url, "on_missing", ("fail", "skip")) == "skip",
        watermark_delay=_duration(url, "watermark_delay", 0),
        discover=_duration(url, "discover", 10 * SECOND, least=SECOND),
        batch_rows=batch_rows,
    )


def write_settings(url: ConnectorUrl) -> WriteSettings:
    """What a sink's URL says.

    Raises:
        UserError: something in it is wrong.
    """
    cluster, topic = _cluster(url)
    return WriteSettings(cluster, topic, _choice(url, "compression", COMPRESSIONS))


def _cluster(url: ConnectorUrl) -> tuple[Cluster, str]:
    brokers, _, topic = url.path.partition("/")
    for broker in brokers.split(","):
        if not _BROKERS.fullmatch(broker):
            raise UserError(f"{url}: {broker!r} is no host:port; write kafka://{_PLACE}")
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise UserError(f"{url}: {topic!r} is no name of a topic; write kafka://{_PLACE}")
    security = _choice(url, "security", SECURITIES)
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
        client=_client(url, mechanism),
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
    return _choice(url, "mechanism", MECHANISMS)


def _client(url: ConnectorUrl, mechanism: str | None) -> str:
    """The client that was asked for, or the first that is installed."""
    if "client" in url.parameters:
        client = _choice(url, "client", CLIENTS)
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


def _group(url: ConnectorUrl) -> str | None:
    return url.parameters.get("group")


def _duration(url: ConnectorUrl, name: str, default: int, least: int = 0) -> int:
    text = url.parameters.get(name)
    if text is None:
        return default
    try:
        micros = parse_duration(text)
    except UserError as error:
        raise UserError(f"{url}: {name}: {error}") from error
    if micros < least:
        raise UserError(f"{url}: {name} must be at least {least / SECOND:g} s, found {text}")
    return micros


def _choice(url: ConnectorUrl, name: str, known: Iterable[str]) -> str:
    """The parameter, which must be one of those known; the first of them when it is not given."""
    names = tuple(known)
    text = url.parameters.get(name, names[0])
    if text not in names:
        raise UserError(f"{url}: {name}={text} is unknown; known are {', '.join(names)}{did_you_mean(text, names)}")
    return text


def _moment(url: ConnectorUrl, name: str, words: tuple[str, ...]) -> Moment:
    """`earliest`, `latest`, or `timestamp:` with milliseconds since 1970 or a time in ISO 8601."""
    text = url.parameters.get(name, words[0])
    if text in words:
        return Moment(text)
    prefix, _, time = text.partition(":")
    if prefix != "timestamp" or not time:
        forms = [*words, "timestamp:2026-01-31T08:00:00Z", "timestamp:MILLISECONDS"]
        raise UserError(f"{url}: {name} must be {_or(forms)}; found {text!r}{did_you_mean(text, words)}")
    if re.fullmatch(r"[0-9]{1,15}", time):
        return Moment("timestamp", int(time))
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError:
        raise UserError(f"{url}: {name}: {time!r} is no time; write 2026-01-31T08:00:00Z") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return Moment("timestamp", int(parsed.timestamp() * 1000))


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
