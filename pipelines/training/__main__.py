"""`python -m pipelines.training`: read, train, and write a model directory."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NoReturn, get_args

from model_artifacts.artifact import refuse_foreign, save_model
from model_artifacts.manifest import Costs, ModelKind
from pipelines.training.card import metrics_lines
from pipelines.training.neural import import_keras
from pipelines.training.split import SplitRequest
from pipelines.training.trainer import TrainedModel, TrainingRequest, train
from transforms.durations import parse_duration
from transforms.errors import UserError, did_you_mean
from transforms.features import FeatureSet, load_feature_set, shipped_feature_sets
from transforms.schema import load_schema

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

_EPILOG = """\
examples:
  python -m pipelines.training --source 'simulator:?days=120&seed=1' --model xgboost --output models/mine
  python -m pipelines.training --source 'file:data/*.parquet' --schema handbook --model logistic \\
      --train_from 2018-07-25 --train_to 2018-08-01 --test_days 7 --output models/week
  python -m pipelines.fraud --model models/mine
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as `argv` says; 0 when a model was written, 2 after a mistake of the user's."""
    try:
        run(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def check(argv: Sequence[str]) -> TrainingRequest:
    """What `argv` asks for; nothing is read yet but declarations.

    Raises:
        UserError: it is refused.
    """
    options = _parse(argv)
    return _request(options, Path(options.output))


def run(argv: Sequence[str]) -> None:
    """Train as `argv` says.

    Raises:
        UserError: a mistake of the user's.
    """
    options = _parse(argv)
    output = Path(options.output)
    request = _request(options, output)
    refuse_foreign(output)
    if request.kind == "neural":
        import_keras()  # it is an extra: that it is missing must be said before an hour of features
    from pipelines.matrix import build_matrix  # with it comes Beam, which --help and mistakes need not wait for

    _say(f"reading {request.source} and computing {len(request.feature_set.names)} features")
    table = build_matrix(
        source=options.source,
        schema=options.schema,
        feature_set=request.feature_set,
        label_delay_us=request.label_delay,
        labels=options.labels,
    )
    _say(f"{table.num_rows:,} transactions")
    trained = train(table, request, _say)
    save_model(output, trained.onnx, trained.manifest, trained.card, trained.plots, trained.reference)
    _report(trained, output)


def _request(options: argparse.Namespace, output: Path) -> TrainingRequest:
    """The request, every value checked before anything is read."""
    if options.split != "time":
        raise UserError(
            f"--split {options.split} is refused: transactions of one stolen card would be on both sides, and the "
            "model would learn from frauds not yet reported on the days it is tested on. Its results would look "
            "better than they ever are in production. Leave --split out: periods follow one another in time"
        )
    if options.resample is not None:
        raise UserError(
            f"--resample {options.resample} is refused: repeated or made-up frauds would be on both sides of the "
            "split, and probabilities would no longer be those of the real share of frauds. Use --class_weight "
            "balanced; calibration then mends the probabilities"
        )
    feature_set = _feature_set(options)
    return TrainingRequest(
        name=_name(options.name or output.resolve().name),
        kind=options.model,
        source=options.source,
        schema=load_schema(options.schema).name,
        feature_set=feature_set,
        label_delay=parse_duration(options.label_delay),
        labels=options.labels,
        costs=Costs(
            review=_minor("--review_cost", options.review_cost, feature_set.minor_digits),
            decline=_minor("--decline_cost", options.decline_cost, feature_set.minor_digits),
        ),
        split=SplitRequest(
            train_from=_midnight("--train_from", options.train_from),
            train_to=_midnight("--train_to", options.train_to),
            test_days=_positive("--test_days", options.test_days),
        ),
        class_weight=options.class_weight,
        seed=_seed(options.seed),
    )


def _feature_set(options: argparse.Namespace) -> FeatureSet:
    if options.features:
        return load_feature_set(options.features)
    name = load_schema(options.schema).name
    if name not in shipped_feature_sets():
        raise UserError(
            f"schema {name} has no feature set of its name; give --features, a file or one of "
            f"{', '.join(shipped_feature_sets())}"
        )
    return load_feature_set(name)


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name a model: use small letters, digits, '-', '_' and '.', as in --name mine")
    return name


def _minor(flag: str, text: str, digits: int) -> int:
    """An amount in minor units of its text in major ones."""
    try:
        minor = Decimal(text).scaleb(digits)
    except InvalidOperation:
        minor = Decimal("NaN")
    if not minor.is_finite() or minor < 0 or minor != minor.to_integral_value():
        raise UserError(f"{flag} {text!r} is not an amount of 0 or more with at most {digits} decimals, such as 5.00")
    return int(minor)


def _midnight(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        start = date.fromisoformat(text)
    except ValueError:
        raise UserError(f"{flag} {text!r} is not a date; write it as 2018-07-25") from None
    return int(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp()) * 1_000_000


def _positive(flag: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise UserError(f"{flag} {text!r} is not a whole number of days, 1 or more")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise UserError(f"--seed {text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise UserError(f"unknown argument {unknown[0]}{did_you_mean(unknown[0].split('=')[0], flags)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipelines.training",
        description="Train a model with the features the pipeline itself computes, and write it as a directory "
        "with an ONNX file, a manifest and a model card.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--source", required=True, metavar="URL", help="transactions: simulator:..., file:...")
    data.add_argument("--schema", default="handbook", metavar="NAME|FILE", help="how they are read (%(default)s)")
    data.add_argument("--features", metavar="NAME|FILE", help="the feature set (the one named as the schema)")
    data.add_argument("--labels", metavar="URL", help="labels that arrive apart from the transactions")
    data.add_argument(
        "--label_delay", default="7d", metavar="SPAN", help="how long until a label is known (%(default)s)"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", required=True, choices=get_args(ModelKind), help="what to fit")
    model.add_argument("--output", required=True, metavar="DIR", help="the model directory to write")
    model.add_argument("--name", metavar="NAME", help="the model's name (the directory's)")
    model.add_argument(
        "--class_weight", default="none", choices=("none", "balanced"), help="weight of frauds while fitting"
    )
    model.add_argument("--seed", default="0", metavar="N", help="of everything drawn (%(default)s)")
    costs = parser.add_argument_group("costs, in major units; a missed fraud costs its amount")
    costs.add_argument("--review_cost", default="5.00", metavar="AMOUNT", help="of a review (%(default)s)")
    costs.add_argument(
        "--decline_cost", default="20.00", metavar="AMOUNT", help="of a good transaction declined (%(default)s)"
    )
    periods = parser.add_argument_group("periods; chosen from the data when left out")
    periods.add_argument("--train_from", metavar="DATE", help="the first day of training")
    periods.add_argument("--train_to", metavar="DATE", help="the day training ends before")
    periods.add_argument("--test_days", metavar="N", help="days of the test, which starts a label delay later")
    # Accepted so that they can be refused with a reason rather than as unknown.
    parser.add_argument("--split", default="time", help=argparse.SUPPRESS)
    parser.add_argument("--resample", help=argparse.SUPPRESS)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _report(trained: TrainedModel, output: Path) -> None:
    manifest = trained.manifest
    _say(f"\n{manifest.model_id}, tested on {manifest.training.test_from} to {manifest.training.test_to}")
    for line in metrics_lines(manifest):
        _say(f"  {line}")
    _say(f"  review from {manifest.thresholds.review:g}, decline from {manifest.thresholds.decline:g}")
    _say(f"written to {output}")


if __name__ == "__main__":
    sys.exit(main())
