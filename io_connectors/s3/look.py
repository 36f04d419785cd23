"""Look at a bucket before anything is read: what can be known to be wrong is said at once."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from io_connectors.aws import error_code, is_transient
from io_connectors.files import check_file, file_of
from io_connectors.s3.fetch import Fetcher, UnreadableObjectError
from io_connectors.s3.listing import Found, Pattern, list_objects
from io_connectors.s3.objects import s3_client
from io_connectors.s3.settings import ObjectSettings
from transforms.errors import UserError, did_you_mean

#: So many objects are looked at, spread evenly over the names there are.
_LOOKED_AT = 12
_PATIENCE = 10.0  # seconds; a server that cannot be reached is said at once, not after the minutes a worker waits


def look(settings: ObjectSettings) -> list[Found]:
    """The objects that are there to be read, once some have been found to be what they should be.

    Raises:
        UserError: the bucket cannot be reached or read, nothing matches and nothing is waited for, or an object is
            not of the schema.
    """
    client = s3_client(settings.url)
    backoff = replace(settings.backoff, give_up_after=_PATIENCE)
    try:
        found = list_objects(client, settings.pattern, backoff, lambda error: None).found
        found = [each for each in found if each.modified >= settings.start.millis * 1000]
        if not found and settings.watch is None:
            raise UserError(_nothing(client, settings))
        if settings.start.word != "latest":
            _look_at(found, settings, Fetcher(client, settings.pattern.bucket, backoff, lambda error: None))
        return found
    except NoCredentialsError as error:
        raise UserError(
            "s3: no AWS credentials found; see https://docs.aws.amazon.com/cli/latest/userguide/cli-chap-configure.html"
        ) from error
    except (ClientError, BotoCoreError) as error:
        if is_transient(error):
            raise UserError(f"{settings.pattern}: no answer for {_PATIENCE:.0f} seconds: {error}") from error
        if isinstance(error, ClientError):
            why = f"{error_code(error)}: {error.response['Error'].get('Message')}"
            raise UserError(f"{settings.pattern}: {why}") from error
        raise
    finally:
        client.close()


def _look_at(found: list[Found], settings: ObjectSettings, fetcher: Fetcher) -> None:
    """Refuse what is not as it should be.

    Who watches a bucket meets wrong objects all the time, which become dead letters; but if all are wrong, it is the
    URL or the schema that is.
    """
    chosen = found[:: max(1, len(found) // _LOOKED_AT)]
    wrong: list[UserError] = []
    for each in chosen:
        try:
            _look_at_one(each, settings, fetcher)
        except UserError as error:
            if settings.watch is None:
                raise
            wrong.append(error)
    if wrong and len(wrong) == len(chosen):
        raise wrong[0]


def _look_at_one(found: Found, settings: ObjectSettings, fetcher: Fetcher) -> None:
    name = settings.name_of(found)
    file = file_of(name, settings.format)
    with tempfile.TemporaryDirectory(prefix="s3-") as directory:
        path = Path(directory, "object")
        try:
            fetcher.fetch_beginning(found, file.format == "parquet", path)
            check_file(file._replace(path=str(path)), settings.schema)
        except UnreadableObjectError as error:
            raise UserError(f"{name}: {error}") from error
        except UserError as error:
            raise UserError(str(error).replace(str(path), name)) from error


def _nothing(client: Any, settings: ObjectSettings) -> str:
    """What to say when nothing matches."""
    pattern = settings.pattern
    if settings.start.word == "timestamp":
        return f"source {pattern}: no object of that name that was put since {settings.url.parameters['start']}"
    folder, _, name = pattern.beginning.rpartition("/")
    listed = client.list_objects_v2(Bucket=pattern.bucket, Prefix=f"{folder}/" if folder else "", Delimiter="/")
    keys = [each["Key"] for each in listed.get("Contents", ())]
    keys += [each["Prefix"].rstrip("/") for each in listed.get("CommonPrefixes", ())]
    near = sorted(key.rpartition("/")[2] for key in keys)
    there = f"there are {', '.join(islice(near, 5))}" if near else "there is nothing"
    where = Pattern(pattern.bucket, folder)
    return f"source {pattern}: no object of that name{did_you_mean(name, near)} ({there} in {where})"
