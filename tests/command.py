"""Run the command in this process, and look at what it leaves."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.fraud import main


@dataclass(frozen=True)
class Run:
    """What a run said and left in its output directory."""

    code: int
    output: Path
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of summary.json."""
        figures: dict[str, Any] = json.loads((self.output / "summary.json").read_bytes())
        return figures

    @property
    def decisions(self) -> pa.Table:
        """The decisions, by event time and transaction."""
        return decisions_of(self.output / "decisions")

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """The lines of alerts.jsonl."""
        return lines_of(self.output / "alerts.jsonl")

    @property
    def dead_letters(self) -> list[dict[str, Any]]:
        """The lines of dead_letters.jsonl."""
        return lines_of(self.output / "dead_letters.jsonl")


def run_command(output: Path, *argv: str) -> Run:
    """Run `python -m pipelines.fraud --output OUTPUT ARGV...`; of a run that ends well, check that nothing is lost."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*argv, "--output", str(output), "--quiet"])
    run = Run(code, output, out.getvalue(), err.getvalue())
    if code == 0 and "--print_config" not in argv:
        figures = run.summary
        assert figures["read"] == figures["transactions"] + sum(figures["dead_letters"].values())
        assert run.stderr == ""
    return run


def decisions_of(directory: Path) -> pa.Table:
    """The decisions in a directory, by event time and transaction."""
    tables = [pq.read_table(part) for part in sorted(directory.glob("part-*.parquet"))]
    return pa.concat_tables(tables).sort_by([("event_time", "ascending"), ("transaction_id", "ascending")])


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
