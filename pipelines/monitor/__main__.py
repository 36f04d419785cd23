"""`python -m pipelines.monitor`: make what drift is measured against, and look for train-serve skew."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from model_artifacts.artifact import load_model, model_directory, shipped_models
from model_artifacts.reference import REFERENCE_FILE, write_reference
from pipelines.decisions import read_decisions
from pipelines.monitor.skew import compare_features, skew_lines
from transforms.errors import UserError

_EPILOG = """\
examples:
  python -m pipelines.monitor reference --decisions output/decisions --model models/mine
      the model's reference.json out of what a run decided on days that were as they should be
  python -m pipelines.monitor reference --decisions output/decisions --model handbook --output reference.json
  python -m pipelines.fraud --set monitor.reference=reference.json
  python -m pipelines.monitor skew --served decisions/2026-03 --recomputed replayed/decisions --model models/mine

Exit codes: 0 done, and nothing differs; 1 features differ; 2 something you gave is wrong.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    try:
        options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
        return _reference(options) if options.command == "reference" else _skew(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _reference(options: argparse.Namespace) -> int:
    from pipelines.monitor.reference import (
        reference_of_decisions,  # with it comes Beam, which mistakes need not wait for
    )

    if options.output is None and options.model in shipped_models():
        raise UserError(
            f"{options.model} is a shipped model, whose directory is not to be written to: name a file with --output, "
            "and that file with --set monitor.reference=FILE when you run"
        )
    manifest = load_model(options.model).manifest
    path = Path(options.output) if options.output else model_directory(options.model) / REFERENCE_FILE
    reference = reference_of_decisions(read_decisions(options.decisions), manifest, options.decisions)
    write_reference(path, reference)
    print(f"{len(reference.columns)} columns of {manifest.model_id}, written to {path}")
    return 0


def _skew(options: argparse.Namespace) -> int:
    names = load_model(options.model).manifest.feature_names
    columns = ("transaction_id", *names)
    served = read_decisions(options.served, columns, "--served")
    recomputed = read_decisions(options.recomputed, columns, "--recomputed")
    skew = compare_features(served, recomputed, names, _tolerance(options.tolerance))
    print("\n".join(skew_lines(skew)))
    return 1 if skew.found else 0


def _tolerance(text: str) -> float:
    try:
        tolerance = float(text)
    except ValueError:
        tolerance = -1.0
    if not (tolerance >= 0 and math.isfinite(tolerance)):
        raise UserError(f"--tolerance {text!r} is not a number of 0 or more")
    return tolerance


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipelines.monitor",
        description="Make what drift is measured against, and compare served features with recomputed ones.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    reference = commands.add_parser("reference", help="make a reference of decisions", allow_abbrev=False)
    reference.add_argument("--decisions", required=True, metavar="DIR", help="Parquet that a run wrote")
    reference.add_argument("--model", required=True, metavar="URI", help="the model that decided")
    reference.add_argument(
        "--output", metavar="FILE", help="where to write it (reference.json in the model's directory)"
    )
    skew = commands.add_parser("skew", help="compare features by transaction", allow_abbrev=False)
    skew.add_argument("--served", required=True, metavar="DIR", help="Parquet of what was served")
    skew.add_argument(
        "--recomputed", required=True, metavar="DIR", help="Parquet of the same transactions, computed anew"
    )
    skew.add_argument("--model", required=True, metavar="URI", help="whose features they are")
    skew.add_argument("--tolerance", default="0", metavar="X", help="distances up to it are none (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
