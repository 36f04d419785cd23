"""`python -m pipelines.replay`: what these settings, or another model, would have decided on past days."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.past_options import add_past_flags, parse_flags, past_parser
from pipelines.replay.period import midnight
from pipelines.say import complain, tell
from transforms.errors import UserError

_DESCRIPTION = """\
Decides on past days again, with the transforms of the pipeline and in the order of event time, and compares with the
decisions that were served. Nothing that was served is touched: no sink and no alert target is opened.
"""

_EPILOG = """\
The model is the one that served, unless --model names another. Features look back as far as their longest window and
delay, so the source must hold that many days before --from; the rows of those days are read and not decided on.
Rows that were served late are counted apart. With labels in the source, or --labels, both sides are valued.

Results in the output directory:
  report.html           what differs, in tables and plots; summary.json: the figures
  differences.parquet   the transactions that are decided on otherwise, with both decisions
  decisions/*.parquet   all decisions as replayed; --served takes them too, to compare two candidates

examples:
  python -m pipelines.replay --from 2026-03-01 --to 2026-03-08
      the default run's own days: nothing differs
  python -m pipelines.replay --from 2026-03-01 --to 2026-03-08 --model models/candidate --by amount
      what a candidate would have done, by bands of the amount
  python -m pipelines.replay --from 2026-03-01 --to 2026-03-08 --config fraud.toml --set policy.review=0.05 \\
      --source 'kafka://broker:9092/tx?start=timestamp:2025-12-25&until=latest' --served s3://bank/decisions
      another threshold, on a topic and a bucket; leave out group= of the topic

Exit codes: 0 done, whatever differs; 1 with --fail_on_difference, if anything does; 2 something you gave is wrong;
130 Ctrl-C.
"""


def main(argv: Sequence[str] | None = None, clock: Callable[[], int] = time.time_ns) -> int:
    """The command; returns its exit code.

    Args:
        argv: without the program's name.
        clock: nanoseconds since 1970: labels that are known now count.
    """
    try:
        return _run(parse_flags(_parser(), sys.argv[1:] if argv is None else argv), clock() // 1000)
    except UserError as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


def _run(options: argparse.Namespace, now: int) -> int:
    start, end = midnight("--from", options.start), midnight("--to", options.end)
    known_by = midnight("--known_by", options.known_by) if options.known_by else now
    from pipelines.replay.request import request_of  # with it comes Beam, which --help and mistakes need not wait for

    request = request_of(options, start, end, known_by)
    from pipelines.replay.report import report_html
    from pipelines.replay.run import run
    from pipelines.replay.summary import summary_json, summary_text

    with request.output as output:
        facts = run(request)
        output.report.write_text(report_html(facts), "utf-8")
        output.summary.write_bytes(summary_json(facts))
    tell(summary_text(facts, colour=sys.stdout.isatty()))
    return int(options.fail_on_difference and not facts.comparison.identical)


def _parser() -> argparse.ArgumentParser:
    parser = past_parser("python -m pipelines.replay", _DESCRIPTION, _EPILOG)
    days = parser.add_argument_group("Which days")
    days.add_argument(
        "--from", dest="start", required=True, metavar="DATE", help="the first day, such as 2026-03-01 (UTC)"
    )
    days.add_argument("--to", dest="end", required=True, metavar="DATE", help="the day after the last")
    add_past_flags(parser)
    results = parser.add_argument_group("What is told")
    results.add_argument(
        "--by", metavar="COLUMN", help="segments: a category, an entity, a feature, or amount (in bands)"
    )
    results.add_argument("--known_by", metavar="DATE", help="labels that were known by then count (default: by now)")
    results.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("replay"), help="where (default %(default)s)"
    )
    results.add_argument("--fail_on_difference", action="store_true", help="exit with 1 if anything differs")
    results.add_argument("--quiet", action="store_const", const="off", help="no progress, the summary only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
