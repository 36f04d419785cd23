"""`python -m pipelines.explain`: why a transaction is decided on as it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.past_options import add_past_flags, parse_flags, past_parser, settings_of
from pipelines.say import complain, tell
from transforms.errors import UserError

_DESCRIPTION = """\
Finds a transaction in the log, computes its features again from the past of its customer and terminal, and says what
each did to the score, which rules apply, and what the policy makes of it. Nothing is written but what is asked for.
"""

_EPILOG = """\
Only rows of the same entities are taken in, as far back as features look: the source must hold those days. It is read
three times. With --served, the decision as it was served is looked up, and whether score and features are the same.
Card numbers are masked.

examples:
  python -m pipelines.explain 87654
      a transaction of the default run
  python -m pipelines.explain 87654 --served output --picture why.png
      the same, compared with what was served, and as a picture
  python -m pipelines.explain 87654 --model models/candidate --format json
      what a candidate makes of it, for programs

Exit codes: 0 explained; 2 something you gave is wrong, such as an id that the source does not have;
130 Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    try:
        return _run(parse_flags(_parser(), sys.argv[1:] if argv is None else argv))
    except UserError as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.picture and options.picture.suffix.lower() != ".png":
        raise UserError(f"--picture {options.picture} must end in .png")
    settings, _ = settings_of(options)
    import msgspec  # with what follows comes Beam, which --help and mistakes need not wait for

    from pipelines.explain.explain import explain_transaction
    from pipelines.explain.picture import write_picture
    from pipelines.explain.text import explanation_text

    told = explain_transaction(settings, options.transaction_id, options.served)
    if options.picture:
        write_picture(told, options.picture)
    if options.format == "json":
        tell(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        bar = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
        tell(explanation_text(told, colour=sys.stdout.isatty(), bar=bar))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = past_parser("python -m pipelines.explain", _DESCRIPTION, _EPILOG)
    parser.add_argument("transaction_id", metavar="TRANSACTION_ID", help="which transaction")
    add_past_flags(parser)
    results = parser.add_argument_group("How it is told")
    results.add_argument("--format", choices=("text", "json"), default="text", help="(default %(default)s)")
    results.add_argument("--picture", metavar="FILE.png", type=Path, help="draw a waterfall into this file as well")
    results.add_argument("--quiet", action="store_const", const="off", help="no progress")
    return parser


if __name__ == "__main__":
    sys.exit(main())
