"""Decisions in a bucket, as the `s3:` sink leaves them, read a day of event time at a time."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError

from io_connectors.retry import Backoff
from io_connectors.s3.fetch import Fetcher, UnreadableObjectError
from io_connectors.s3.listing import Found, Pattern, list_objects
from io_connectors.s3.objects import parse_location, s3_client
from io_connectors.urls import ConnectorUrl
from pipelines.formats import day
from pipelines.replay.decisions import decision_files
from transforms.errors import UserError

_OF_DAY = re.compile(r"(?:^|/)event_date=(\d{4}-\d{2}-\d{2})/[^/]*\.parquet$")
_PATIENCE = 10.0  # seconds; somebody waits at a terminal


@dataclass(frozen=True)
class DecisionObjects:
    """Decisions below a prefix; made by `decision_objects`.

    Attributes:
        url: where.
        by_day: the objects of each day, by the date in their names.
    """

    url: ConnectorUrl
    by_day: dict[str, list[Found]]

    def day(self, number: int) -> pa.Table | None:
        """See `Decisions.day`; the objects of that day alone are fetched, and not kept."""
        objects = self.by_day.get(day(number), [])
        if not objects:
            return None
        with tempfile.TemporaryDirectory(prefix="served-") as directory:
            return decision_files(self._fetch(objects, Path(directory)), str(self.url)).day(number)

    def _fetch(self, objects: Sequence[Found], directory: Path) -> list[Path]:
        files = [directory / f"{at}.parquet" for at in range(len(objects))]
        with closing(s3_client(self.url)) as client:
            fetcher = Fetcher(client, parse_location(self.url.path).bucket, Backoff(), lambda error: None)
            for found, file in zip(objects, files, strict=True):
                try:
                    fetcher.fetch(found, file)
                except UnreadableObjectError as error:
                    raise UserError(f"--served {self.url}: {found.key}: {error}") from error
        return files


def decision_objects(url: ConnectorUrl) -> DecisionObjects:
    """The decisions below the prefix of an `s3:` sink.

    Raises:
        UserError: the bucket cannot be listed, or holds no decisions there.
    """
    location = parse_location(url.path)
    with closing(s3_client(url)) as client:
        try:
            pattern = Pattern(location.bucket, location.prefix)
            listed = list_objects(client, pattern, Backoff(give_up_after=_PATIENCE), lambda error: None)
        except (BotoCoreError, ClientError) as error:
            raise UserError(f"--served {url}: cannot be listed: {error}") from error
    by_day: dict[str, list[Found]] = {}
    for found in listed.found:
        if named := _OF_DAY.search(found.key):
            by_day.setdefault(named[1], []).append(found)
    if not by_day:
        raise UserError(f"--served {url}: holds no event_date=DATE/*.parquet, as the s3: sink writes them")
    return DecisionObjects(url, by_day)
