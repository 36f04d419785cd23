"""Write the savepoint that `test_savepoint.py` restores: `python -m tests.golden.make_savepoint`.

It holds everything a stream remembers, in the form that the state had when it was written: ids seen, histories, rows
that wait for their turn, timers, alerts sent, windows that are open, what is left to read. It must stay as it is for as
long as savepoints of its release are to be read; it is written anew, by the release before, when a release drops that.
Beside it lie the rows of its topic (the part it has seen, and the part it has not) and what was decided on all of them
without a break.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from runners.flink.cluster import start_cluster, stop_cluster
from runners.local import Kafka, free_port
from tests.integration.flink_versions import RULES, Row, Versions, ids_of, rows_of, split_at

DIRECTORY = Path(__file__).parent / "savepoint"
#: Part of the state, as the topics of a stream are.
NAME = "golden"
SOURCE = "simulator:?customers=20&terminals=300&days=30&seed=11"
#: Alerts of days before the savepoint matter after it, and a window is open in it.
LONG = RULES.replace('"1h"', '"2d"') + '[summary]\nwindow = "2d"\n'
DAY = 86_400_000
FIRST = 1_735_689_600_000  # 2025-01-01
DECIDED, SEEN = FIRST + 14 * DAY, FIRST + 21 * DAY


def write_lines(name: str, lines: Iterable[object]) -> None:
    """Write JSON values into a file, the same bytes whenever they are the same."""
    content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    (DIRECTORY / name).write_bytes(gzip.compress(content, mtime=0))


def read_rows() -> list[list[Row]]:
    """The rows decided on, those that wait in the savepoint, and those it has not seen."""
    lines = gzip.decompress((DIRECTORY / "rows.jsonl.gz").read_bytes()).splitlines()
    return split_at([Row(*json.loads(line)) for line in lines], DECIDED, SEEN)


def read_results(what: str) -> dict[str, bytes]:
    """What was decided, or alerted, by transaction."""
    lines = gzip.decompress((DIRECTORY / f"{what}.jsonl.gz").read_bytes()).splitlines()
    return {name: text.encode() for name, text in map(json.loads, lines)}


def write(versions: Versions) -> None:
    """Write all files.

    Args:
        versions: of a topic called `NAME` on servers that run.
    """
    rows = rows_of(SOURCE, FIRST)
    decided, waiting, unseen = split_at(rows, DECIDED, SEEN)
    rules = ("--config", str(versions.directory / "rules.toml"))
    versions.send(decided)
    versions.start(DECIDED, *rules, "--parallelism=1")
    versions.wait_for_decisions(ids_of(decided))
    versions.send(waiting)
    versions.wait_until_remembered(ids_of(waiting))
    savepoint = versions.stop()
    versions.send(unseen)
    versions.run_without_a_break("here", *rules)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    shutil.copytree(savepoint.removeprefix("file:"), DIRECTORY / "state")
    write_lines("rows.jsonl.gz", rows)
    for what in ("decisions", "alerts"):
        write_lines(f"{what}.jsonl.gz", sorted((n, r.decode()) for n, r in versions.results("here", what).items()))


def main() -> None:
    """Start servers, write, and stop them."""
    with tempfile.TemporaryDirectory(prefix="golden-") as place:
        directory, own = Path(place), Path(place, "own")
        own.mkdir()
        (own / "rules.toml").write_text(LONG)
        kafka = Kafka(directory / "kafka", free_port()).start()
        try:
            flink = start_cluster(directory / "flink", ports={"rest": 0, "workers": 0})
            write(Versions(kafka, flink, own, NAME))
        finally:
            stop_cluster(directory / "flink")
            kafka.stop()


if __name__ == "__main__":
    main()
