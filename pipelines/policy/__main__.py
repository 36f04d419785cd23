"""`python -m pipelines.policy`: what other thresholds, chosen on some weeks, would have come to in later ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from model_artifacts.artifact import load_model
from model_artifacts.manifest import Manifest
from pipelines.decisions import read_decisions
from pipelines.settings import Settings, load_settings
from transforms.durations import DAY, format_duration, parse_duration
from transforms.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.policy.choose import Policy
    from pipelines.policy.rows import PolicyRows

AS_SERVED = "as served"

_EPILOG = """\
examples:
  python -m pipelines.policy --decisions output/decisions --model handbook
  python -m pipelines.policy --decisions output/decisions --model models/mine --labels chargebacks.csv \\
      --cards_a_day 50 --segment 'travel: merchant_category == "Travel"' --segment 'large: amount_minor >= 50000'
  python -m pipelines.policy --decisions output/decisions --model handbook --settings policy.toml
  python -m pipelines.fraud --config policy.toml

Decisions are those of a run of pipelines.fraud. Every policy is chosen on the first two thirds of the days and measured
on what follows, a label delay later: labels of the days between would not have been known. Rules are left out.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 after a mistake of the user's."""
    try:
        _run(_parser().parse_args(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    cards = _whole("--cards_a_day", options.cards_a_day)
    delay = parse_duration(options.label_delay)
    settings = load_settings(Path(options.config) if options.config else None)
    manifest = load_model(options.model).manifest
    segments = [_segment(text) for text in options.segment]
    from pipelines.policy.measure import measure, table  # with these comes Beam, which mistakes need not wait for
    from pipelines.policy.rows import policy_rows, with_labels

    decisions = read_decisions(options.decisions)
    if options.labels:
        decisions = with_labels(decisions, options.labels, options.schema or manifest.schema, delay)
    rows = policy_rows(decisions)
    before, after = _parts(rows, delay)
    policies = _policies(before, manifest, settings, options.schema or manifest.schema, segments, cards)
    costs, digits = manifest.costs, manifest.feature_set.minor_digits
    found = [measure(policy.name, policy.severity(after), after, costs, cards) for policy in policies]
    [served] = [policy for policy in policies if policy.name == AS_SERVED]
    limited = _limited(served, rows, after, cards)
    found.append(measure(f"{AS_SERVED}, alerts.cards_a_day = {cards}", limited, after, costs, cards))
    print(f"chosen on {_span(before)}, measured on {_span(after)}: {len(after):,} transactions\n")
    print("\n".join(table(found, cards, digits)))
    if options.settings:
        best = min(zip(found, policies, strict=False), key=lambda pair: pair[0].cost_a_day)[1]
        Path(options.settings).write_text(as_settings(best), "utf-8")
        print(f"\n{best.name!r}, which cost least, written to {options.settings}")


def _limited(policy: Policy, rows: PolicyRows, after: PolicyRows, cards: int) -> NDArray[np.int8]:
    """The policy's decisions on `after` under `alerts.cards_a_day`, which has seen all days before them."""
    from pipelines.policy.choose import within_budget
    from transforms.budget import Budget

    budget, before = Budget(), rows.between(int(rows.times[0]), int(after.times[0]))
    within_budget(before, policy.severity(before), cards, budget)
    return within_budget(after, policy.severity(after), cards, budget)


def _parts(rows: PolicyRows, delay: int) -> tuple[PolicyRows, PolicyRows]:
    """The days to choose on, and those to measure on."""
    first = int(rows.times[0]) // DAY * DAY
    chosen_until = first + rows.days * 2 // 3 * DAY
    measured_from = chosen_until + -(-delay // DAY) * DAY
    before, after = rows.between(first, chosen_until), rows.between(measured_from, int(rows.times[-1]) + 1)
    for part, name in ((before, "choose"), (after, "measure")):
        if not len(part) or not part.labels.any() or part.labels.all():
            raise UserError(
                f"{rows.days} days of labelled decisions leave no frauds among others to {name} policies on, with a "
                f"label delay of {format_duration(delay)} between both parts; give decisions of more days"
            )
    return before, after


def _policies(
    rows: PolicyRows,
    manifest: Manifest,
    settings: Settings,
    schema: str,
    conditions: list[tuple[str, str]],
    cards: int,
) -> list[Policy]:
    """Those that are served, and those chosen on `rows`."""
    from model_artifacts.manifest import Thresholds
    from pipelines.policy.choose import Policy, amount_bands, by_budget, by_cost, by_segment
    from transforms.decide import ThresholdPolicy, thresholds_for
    from transforms.policy import compile_segments
    from transforms.rules import rule_columns
    from transforms.schema import load_schema

    columns = rule_columns(load_schema(schema), manifest.feature_set)
    least = by_cost(rows, manifest.costs)
    rest, segments = by_segment(rows, conditions or amount_bands(rows), columns, manifest.costs)
    served = compile_segments(settings.policy.segments, columns)
    return [
        Policy("approve everything", Thresholds(review=2.0, decline=2.0)),
        Policy(
            AS_SERVED,
            thresholds_for(manifest, ThresholdPolicy(settings.policy.review, settings.policy.decline)),
            served,
        ),
        Policy("least cost", least),
        Policy("least cost by segment", rest, segments),
        Policy(f"{cards} cards a day", by_budget(rows, cards, least.decline)),
    ]


def as_settings(policy: Policy) -> str:
    """A policy as settings of `python -m pipelines.fraud`."""
    lines = ["[policy]", f"review = {policy.thresholds.review!r}", f"decline = {policy.thresholds.decline!r}"]
    for segment in policy.segments.segments if policy.segments else ():
        when = segment.when.replace("\\", "\\\\").replace('"', '\\"')
        lines += ["", "[[policy.segments]]", f'name = "{segment.name}"', f'when = "{when}"']
        lines += [f"review = {segment.review!r}", f"decline = {segment.decline!r}"]
    return "\n".join(lines) + "\n"


def _segment(text: str) -> tuple[str, str]:
    name, colon, when = text.partition(":")
    if not colon or not name.strip() or not when.strip():
        raise UserError(f"--segment {text!r}: write NAME: CONDITION, as in 'large: amount_minor >= 50000'")
    return name.strip(), when.strip()


def _whole(flag: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise UserError(f"{flag} {text!r} is not a whole number, 1 or more")
    return int(text)


def _span(rows: PolicyRows) -> str:
    from pipelines.formats import day

    return f"{day(int(rows.times[0]) // DAY)} to {day(int(rows.times[-1]) // DAY)}"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipelines.policy",
        description="Compare decision policies on decisions whose labels are known.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--decisions", required=True, metavar="DIR", help="Parquet that a run wrote")
    parser.add_argument("--model", required=True, metavar="URI", help="the model that scored them")
    parser.add_argument("--labels", metavar="URL", help="labels in place of those the decisions carry")
    parser.add_argument("--schema", metavar="NAME|FILE", help="of the transactions and labels (the model's)")
    parser.add_argument("--label_delay", default="7d", metavar="SPAN", help="until a label is known (%(default)s)")
    parser.add_argument("--config", metavar="FILE", help="settings with the policy that is served (the model's)")
    parser.add_argument(
        "--segment", action="append", default=[], metavar="NAME: CONDITION",
        help="a part with thresholds of its own; repeated, the first that applies counts (three bands of amount)",
    )  # fmt: skip
    parser.add_argument("--cards_a_day", default="100", metavar="K", help="the alert budget (%(default)s)")
    parser.add_argument("--settings", metavar="FILE", help="where to write the policy that cost least, as settings")
    return parser


if __name__ == "__main__":
    sys.exit(main())
