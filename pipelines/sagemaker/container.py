"""What every job of SageMaker finds in its container, and how it says why it failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transforms.errors import UserError

#: What the files of a channel may be called; see `io_connectors.sources`.
_ENDINGS = ("csv", "json", "jsonl", "parquet")
#: SageMaker shows so much of why a job failed.
_MOST_TEXT = 1024


def base(environment: Mapping[str, str]) -> Path:
    """/opt/ml, or where a container has it instead."""
    return Path(environment.get("SAGEMAKER_BASE_DIR", "/opt/ml"))


def files_url(what: str, place: Path) -> str:
    """The files of a directory and those below it as a source's URL.

    Args:
        what: it is, for messages.
        place: the directory.

    Raises:
        UserError: there are none, or of several kinds.
    """
    found = {path.name.partition(".")[2] for path in place.rglob("*") if path.is_file()}
    kinds = sorted(kind for kind in found if kind.split(".")[0] in _ENDINGS)
    if len(kinds) != 1:
        raise UserError(
            f"{what} must hold files of one kind, such as *.parquet or *.csv.gz; found {', '.join(kinds) or 'none'}"
        )
    return f"file:{place}/**/*.{kinds[0]}"


@dataclass
class Ended:
    """How a job has ended.

    Attributes:
        code: the process' exit code.
    """

    code: int = 0


@contextmanager
def told(environment: Mapping[str, str]) -> Iterator[Ended]:
    """Inside, a mistake of the user's is told on standard error and where SageMaker looks for the reason."""
    ended = Ended()
    try:
        yield ended
    except UserError as error:
        ended.code = 2
        print(f"error: {error}", file=sys.stderr)
        output = base(environment) / "output"
        if output.is_dir():
            for name in ("failure", "message"):  # of training jobs, of processing jobs
                (output / name).write_text(str(error)[:_MOST_TEXT], "utf-8")
