"""The flags that say what is read again: the log, what was served, and the settings that decide."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pipelines.setting_values import mask_secrets
from pipelines.settings import Settings, settings_and_origins
from transforms.errors import UserError, did_you_mean

_FLAGS = ("source", "schema", "labels", "model", "quiet")


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are UserErrors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(mask_secrets(f"{message.removeprefix('argument ')}; see --help"))


def past_parser(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser for a command that reads the past."""
    return _Parser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_past_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what is read, and of the settings."""
    data = parser.add_argument_group("What is read")
    data.add_argument("--source", metavar="URL", help="the transactions' log, which must end (default simulator:)")
    data.add_argument("--schema", metavar="NAME|FILE", help="how its fields are named (default handbook)")
    data.add_argument("--labels", metavar="URL", help="labels that arrived later, as they were served with")
    data.add_argument(
        "--served",
        metavar="DIR|PATTERN|URL",
        help="the decisions as they were served: a run's directory, Parquet files, or s3://bucket/prefix of a sink",
    )
    decides = parser.add_argument_group("What decides")
    decides.add_argument(
        "--model", metavar="NAME|DIR", help="the model (default: that of the settings, or the schema's)"
    )
    decides.add_argument(
        "--config", metavar="FILE.toml", type=Path, help="settings and rules; flags win; sinks are not opened"
    )
    decides.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="one setting; may be repeated"
    )


def parse_flags(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """What `argv` says.

    Raises:
        UserError: a flag that there is not, or a value that it does not take.
    """
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise UserError(
            mask_secrets(f"unknown argument {unknown[0]}{did_you_mean(unknown[0].split('=')[0], flags)}; see --help")
        )
    return options


def settings_of(options: argparse.Namespace) -> tuple[Settings, bool]:
    """The settings these flags mean, and whether the model was named anywhere.

    Raises:
        UserError: as `load_settings`.
    """
    flags = {flag: getattr(options, flag, None) for flag in _FLAGS}
    settings, origins = settings_and_origins(options.config, options.set, flags)
    return settings, "model.uri" in origins
