"""The command line of `python -m pipelines.fraud`: its own flags, Beam's flags untouched, and nothing else."""

from __future__ import annotations

import argparse
import importlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pipelines.setting_values import mask_secrets
from pipelines.settings import FLAGS, Settings, settings_and_origins
from transforms.errors import UserError, did_you_mean

DEFAULT_RUNNER = "DirectRunner"

_DESCRIPTION = """\
Reads card transactions, computes each one's features as of its event time, scores it, decides (approve, review or
decline) with reasons, and writes decisions and alerts. Without flags it runs on simulated transactions.
"""

_EPILOG = """\
Any flag of Beam and its runners may stand among these (--direct_num_workers=2, --flink_master=HOST:PORT) and is
passed on as it is. A flag that neither has is refused.

URLs are scheme:path?name=value, and a bare path is a file. Sources:
  simulator:?customers=5000&days=60&seed=7
      made-up transactions; also terminals= and rate= (a second)
  file:PATTERN, s3://bucket/pattern
      CSV, JSON lines or Parquet, by its ending or ?format=; .gz and .zst too; *, ** and ? stand for many files
  kafka://host:port/topic, kinesis://stream
      JSON; start= and until= earliest, latest or a moment; without an end, Ctrl-C stops the run
Sinks:
  file:PATH, s3://bucket/prefix
      Parquet for decisions, JSON lines for alerts and dead letters
  postgresql://user@host/database/schema/table, redshift://cluster/database/schema/table, dynamodb://table
      decisions, one row a transaction however often it is written
  lambda://function, sns:ARN, sqs://queue, kafka://host:port/topic, kinesis://stream
      alerts; all but the first two take dead letters too, the last two decisions
They hold no passwords: those come from the environment, or from where a service's own client looks for them.
docs/connectors.md has every parameter.

Results in the output directory, unless --sink and the like send them elsewhere:
  decisions/*.parquet   every transaction with its score, decision and reasons
  alerts.jsonl          those sent to review or declined
  dead_letters.jsonl    what could not be processed, and why
  windows.jsonl         counts, amounts and scores of each window of time
  drift.jsonl           how far each day is from what the model learnt; calibration.jsonl: its scores against labels
  shadow/*.parquet      what each --shadow candidate made of every transaction
  report.html           the run in figures and plots; summary.json: the figures
  error.log             what went wrong in full, if anything did

Examples:
  python -m pipelines.fraud
      simulated transactions, the shipped model
  python -m pipelines.fraud --source 'days/*.csv.gz' --schema my_bank.toml
      your own files: copy a shipped schema and put in your fields' names
  python -m pipelines.fraud --config fraud.toml --set policy.review=0.4
      settings and rules from a file, and another threshold for once
  python -m pipelines.fraud --source kafka://broker:9092/tx --schema bank.toml
      a stream
  python -m pipelines.fraud --model registry:models#champion --shadow other
      a registered model, and a candidate beside it: see python -m model_artifacts --help
  python -m pipelines.fraud --print_config > fraud.toml
      such a file to begin with

Exit codes: 0 the run came to its end; 1 it failed; 2 something you gave is wrong; 130 Ctrl-C. A line says what.
"""


@dataclass(frozen=True)
class CommandLine:
    """What a command line asks for.

    Attributes:
        settings: flags, `--set`, config file and defaults as one.
        origins: for each setting that was given (`input.source`): the flag or file.
        runner: Beam's name of the runner, or the full name of a class.
        beam_args: the flags that are Beam's, as they were given; `--runner` is not among them.
        print_config: whether to write the settings instead of running.
        explain_runner: whether to write what the runner is told, and why, instead of running.
    """

    settings: Settings
    origins: Mapping[str, str]
    runner: str
    beam_args: list[str]
    print_config: bool
    explain_runner: bool


def parse_command_line(argv: Sequence[str]) -> CommandLine:
    """What `argv` (without the program's name) asks for; `--help` is printed and exits with 0.

    Raises:
        UserError: a flag that neither the product nor Beam has, a wrong value, or a word no flag takes.

    Example:
        >>> parse_command_line(["--source", "day.csv", "--set", "pipeline.shards=4"]).settings.input.source
        'day.csv'
    """
    _check_words(argv)
    own, rest = _own_parser().parse_known_args(argv)
    settings, origins = settings_and_origins(own.config, own.set, {flag: getattr(own, flag) for flag in FLAGS})
    runner = _runner(own.runner or DEFAULT_RUNNER)
    if runner == "FlinkRunner":
        importlib.import_module("runners.flink.options")  # declares the flags that Beam's own Python half does not
    _check_beam_args(rest, runner)
    return CommandLine(settings, origins, runner, rest, own.print_config, own.explain_runner)


def _check_words(argv: Sequence[str]) -> None:
    for word in argv:
        if word == "--":
            raise UserError("-- is not a flag: every value belongs to one")
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{word!r} on the command line is not valid UTF-8") from error


class _Once(argparse.Action):
    """Stores a value and refuses a second one: the first would be lost without a word."""

    def __call__(self, parser: object, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "is given twice, but there can be one only")
        setattr(namespace, self.dest, value)


class _Formatter(argparse.HelpFormatter):
    """Fills text to the terminal's width; a line that is indented stays a line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = re.sub(r"(?m)^(\S.*)\n(?=\S)", r"\1 ", text).splitlines()
        return "\n".join(_wrap(line, width) for line in lines)


def _wrap(line: str, width: int) -> str:
    if line.startswith("  python "):
        return line  # a command is for copying
    margin = re.match(r" +(?:\S+  +)?", line)  # of the second column, where a line has two
    indent = " " * len(margin[0]) if margin else ""
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are UserErrors."""

    def error(self, message: str) -> NoReturn:
        # Some of Beam's flags are read by a function whose name would say nothing to a user.
        said = message.replace("invalid <lambda> value", "invalid value").replace("invalid loads value", "not JSON")
        raise UserError(mask_secrets(said.removeprefix("argument ")))

    def add_value_provider_argument(self, *names: str, **kind: Any) -> None:
        """Beam's own way to declare a flag whose value comes later; here it is a flag like the others."""
        self.add_argument(*names, **kind)


def _own_parser() -> _Parser:
    parser = _Parser(
        prog="python -m pipelines.fraud",
        usage="%(prog)s [flags] [Beam's flags]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    data = parser.add_argument_group("What is read")
    data.add_argument("--source", metavar="URL", action=_Once, help="the transactions (default simulator:)")
    data.add_argument(
        "--schema", metavar="NAME|FILE", action=_Once, help="how their fields are named (default handbook)"
    )
    data.add_argument("--labels", metavar="URL", action=_Once, help="labels that arrive later, such as chargebacks")
    results = parser.add_argument_group("Where results go")
    results.add_argument("--output", metavar="DIR", action=_Once, help="directory of local results (default output)")
    results.add_argument("--sink", metavar="URL", action="append", help="decisions go here; may be repeated")
    results.add_argument("--alert", metavar="URL", action="append", help="alerts go here; may be repeated")
    results.add_argument("--dead_letters", metavar="URL", action=_Once, help="what could not be processed goes here")
    results.add_argument("--shadow_sink", metavar="URL", action=_Once, help="scores of --shadow candidates go here")
    run = parser.add_argument_group("How it runs")
    run.add_argument(
        "--model",
        metavar="NAME|DIR|URI",
        action=_Once,
        help="a shipped or a trained model, one of a registry or on an endpoint (default: the schema's)",
    )
    run.add_argument(
        "--shadow", metavar="NAME|DIR|URI", action="append", help="a candidate that scores too; may be repeated"
    )
    run.add_argument(
        "--runner", metavar="NAME", action=_Once, help=f"Beam's runner, such as FlinkRunner (default {DEFAULT_RUNNER})"
    )
    run.add_argument(
        "--explain_runner", action="store_true", help="write what the runner is told, each with its reason, and stop"
    )
    run.add_argument("--quiet", action="store_const", const="off", help="no progress, the summary only")
    given = parser.add_argument_group("All settings")
    given.add_argument("--config", metavar="FILE.toml", type=Path, action=_Once, help="settings and rules; flags win")
    given.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="one setting; may be repeated"
    )
    given.add_argument("--print_config", action="store_true", help="write every setting with its meaning, and stop")
    given.add_argument("-h", "--help", action="help", help="write this, and stop")
    return parser


def _runner(name: str) -> str:
    """Beam's spelling of a runner's name; Beam takes `flink` for `FlinkRunner`, and so do we."""
    if name == DEFAULT_RUNNER:
        return name  # without waiting for Beam
    if "." in name:
        return _runner_class(name)
    from apache_beam.options.pipeline_options import StandardOptions

    names: list[str] = StandardOptions.KNOWN_RUNNER_NAMES
    spelled = {known.lower(): known for known in names}
    found = spelled.get(name.lower()) or spelled.get(f"{name.lower()}runner")
    if found is None:
        hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
        raise UserError(f"--runner: {mask_secrets(name)!r} is not a runner{hint}")
    return found


def _runner_class(name: str) -> str:
    module, _, kind = name.rpartition(".")
    try:
        getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: not a module's name at all
        raise UserError(mask_secrets(f"--runner: there is no class {name}: {error}")) from error
    return name


def _check_beam_args(args: Sequence[str], runner: str) -> None:
    """Refuse what is not a flag of Beam: Beam itself would pass over it in silence."""
    if not args:
        return
    parser = _beam_parser()
    try:
        known, unknown = parser.parse_known_args(args)
    except UserError:
        raise
    except (AttributeError, TypeError, ValueError) as error:  # of a flag whose value Beam itself takes apart
        flags = ", ".join(word.partition("=")[0] for word in args if word.startswith("-"))
        raise UserError(mask_secrets(f"Beam cannot read the value of a flag among {flags}: {error}")) from error
    if unknown:
        word = mask_secrets(unknown[0])
        if not word.startswith("-"):
            raise UserError(f"{word!r} belongs to no flag; a flag takes one value, so write --sink A --sink B")
        name = word.partition("=")[0]
        # argparse tells the names of its flags in no public way.
        hint = did_you_mean(name, [*_own_parser()._option_string_actions, *parser._option_string_actions])
        raise UserError(f"{name} is a flag of neither this program nor Beam{hint or '; see --help'}")
    if known.labels and "dataflow" not in runner.lower():
        raise UserError("--label is Beam's, for the labels of a Dataflow job; labels of transactions are --labels URL")


def _beam_parser() -> _Parser:
    """A parser of the flags of every PipelineOptions class that is loaded, a user's own among them."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for options in _subclasses(PipelineOptions):
        if "_add_argparse_args" in vars(options):
            options._add_argparse_args(parser)  # the hook by which Beam itself asks a class for its flags
    return parser


def _subclasses(kind: type[Any]) -> Iterator[Any]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
