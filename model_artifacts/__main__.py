"""`python -m model_artifacts`: look after a registry of models."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from model_artifacts.aliases import ALIASES, Move, alias_named, current, history, promote, rollback, standing, timestamp
from model_artifacts.registry import Registry, open_registry
from model_artifacts.registry_text import compared_text, listing, moves_text, version_text
from model_artifacts.signing import PUBLIC_KEY_VARIABLE, SIGNING_KEY_VARIABLE, read_public_key, read_signing_key
from transforms.durations import parse_duration
from transforms.errors import UserError

#: The environment variable that names the registry where no flag does.
REGISTRY_VARIABLE = "FRAUD_MODEL_REGISTRY"
#: MLflow's own, likewise.
MLFLOW_VARIABLE = "MLFLOW_TRACKING_URI"

_EPILOG = f"""\
A registry is a directory or s3://bucket/prefix; --registry, or the environment variable {REGISTRY_VARIABLE}, names it.
It may stand before or after the command.

examples:
  python -m model_artifacts add my_model --registry models
  python -m model_artifacts promote my_model-0123456789ab --registry models
  python -m model_artifacts promote challenger --evidence output/shadow chargebacks.jsonl --registry models
  python -m model_artifacts list --registry s3://my-bucket/models
  python -m model_artifacts rollback --reason 'too many alerts' --registry models
  python -m model_artifacts export champion --mlflow http://127.0.0.1:5000 --registry models
  python -m model_artifacts import models:/my_model/1 --mlflow http://127.0.0.1:5000 --registry other_models
  python -m pipelines.fraud --model registry:models#champion

Signatures: add and sign take --signing_key FILE (or {SIGNING_KEY_VARIABLE}), verify and promote --public_key FILE (or
{PUBLIC_KEY_VARIABLE}). openssl genpkey -algorithm ed25519 -out FILE makes a key, openssl pkey -pubout its public one.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Do as `argv` says; 0 when it is done, 2 after a mistake of the user's or where a model does not verify."""
    try:
        options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
        url = options.registry or os.environ.get(REGISTRY_VARIABLE)
        if not url:
            raise UserError(f"no registry: give --registry DIRECTORY or s3://bucket/prefix, or set {REGISTRY_VARIABLE}")
        run: Callable[[Registry, argparse.Namespace], int] = options.run
        return run(open_registry(url), options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _list(registry: Registry, options: argparse.Namespace) -> int:
    print(listing(registry))
    return 0


def _show(registry: Registry, options: argparse.Namespace) -> int:
    version = _version(registry, options.version)
    print(registry.card(version) if options.card else version_text(registry, version))
    if options.version in ALIASES and not options.card:
        print(f"\n{moves_text(history(registry, alias_named(options.version)))}")
    return 0


def _verify(registry: Registry, options: argparse.Namespace) -> int:
    key, bad = read_public_key(options.public_key), 0
    for version in [_version(registry, word) for word in options.versions] or registry.versions():
        try:
            index = registry.verify(version, key)
            signed = "signed" if registry.is_signed(version, key) else "not signed"
            print(f"ok   {version}  {len(index.files)} files, {signed}")
        except UserError as error:
            bad += 1
            print(f"BAD  {version}  {error}")
    return 2 if bad else 0


def _add(registry: Registry, options: argparse.Namespace) -> int:
    version = registry.add(Path(options.directory), _whoami(), datetime.now(UTC), read_signing_key(options.signing_key))
    print(version.version)
    return 0


def _sign(registry: Registry, options: argparse.Namespace) -> int:
    key = read_signing_key(options.signing_key)
    if key is None:
        raise UserError(f"no key to sign with: give --signing_key FILE, or set {SIGNING_KEY_VARIABLE}")
    registry.sign(_version(registry, options.version), key)
    return 0


def _promote(registry: Registry, options: argparse.Namespace) -> int:
    version, alias = _version(registry, options.version), alias_named(options.alias)
    before = history(registry, alias)
    registry.verify(version, read_public_key(options.public_key))
    evidence, against = _weigh(registry, alias, standing(before), version, options)
    if against and not options.override:
        raise UserError(f"{version} is not promoted: {against}; --override REASON promotes it all the same, on record")
    move = Move(
        action="promote",
        version=version,
        at=timestamp(datetime.now(UTC)),
        by=_whoami(),
        reason=options.override or options.reason,
        evidence=evidence,
        overridden=against,
    )
    promote(registry, alias, move, before)
    print(f"{alias} is {version}")
    return 0


def _weigh(
    registry: Registry, alias: str, stack: list[str], version: str, options: argparse.Namespace
) -> tuple[dict[str, str | int | float], str]:
    """What the evidence says of a version and the champion it would replace, and what speaks against it."""
    if alias != "champion" or not stack or stack[0] == version:
        return {}, ""
    if not options.evidence:
        return {}, f"without --evidence nobody knows how it does beside {stack[0]}"
    from model_artifacts.evidence import against, compare, read_evidence

    manifest = registry.manifest(stack[0])
    delay = parse_duration(options.label_delay or manifest.training.label_delay)
    judged = read_evidence(options.evidence, stack[0], version, manifest.costs, delay)
    compared = compare(judged, options.seed)
    facts: dict[str, str | int | float] = {
        "champion": stack[0],
        "files": " ".join(options.evidence),
        "transactions": len(judged.labels),
        "frauds": int(judged.labels.sum()),
        "seed": options.seed,
    }
    print(compared_text(compared, facts, manifest.feature_set.minor_digits))
    for each in compared:
        name = each.name.replace(" ", "_")
        facts |= {f"{name}_champion": each.champion, f"{name}_challenger": each.challenger}
        facts |= {f"{name}_low": each.low, f"{name}_high": each.high}
    return facts, against(compared)


def _rollback(registry: Registry, options: argparse.Namespace) -> int:
    alias = alias_named(options.alias)
    move = rollback(registry, alias, _whoami(), datetime.now(UTC), options.reason)
    print(f"{alias} is {move.version} again")
    return 0


def _export(registry: Registry, options: argparse.Namespace) -> int:
    from model_artifacts.mlflow_exchange import export_version, open_server

    version, server = _version(registry, options.version), open_server(_mlflow(options))
    print(export_version(registry, version, server, options.mlflow_name))
    return 0


def _import(registry: Registry, options: argparse.Namespace) -> int:
    from model_artifacts.mlflow_exchange import import_version, open_server

    key, server = read_public_key(options.public_key), open_server(_mlflow(options))
    print(import_version(registry, options.model, server, _whoami(), datetime.now(UTC), key))
    return 0


def _mlflow(options: argparse.Namespace) -> str:
    uri: str | None = options.mlflow or os.environ.get(MLFLOW_VARIABLE)
    if not uri:
        raise UserError(f"no MLflow: give --mlflow http://HOST:PORT, or set {MLFLOW_VARIABLE}")
    return uri


def _version(registry: Registry, word: str) -> str:
    """The version that a version's or an alias' name means."""
    if word in registry.versions():
        return word
    return registry.version(word).version if "-" in word else current(registry, alias_named(word))


def _whoami() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    # Without a default: it must not take back what was said before the command.
    common.add_argument(
        "--registry", metavar="URL", default=argparse.SUPPRESS, help="a directory or s3://bucket/prefix"
    )
    parser = _Parser(
        prog="python -m model_artifacts",
        description="Versions of models, and which of them serves.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--registry", metavar="URL", help="a directory or s3://bucket/prefix")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[Registry, argparse.Namespace], int], words: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name, parents=[common], help=words, description=words, allow_abbrev=False
        )
        made.set_defaults(run=run)
        return made

    command("list", _list, "all versions, and what the aliases name")
    show = command("show", _show, "what is known of a version; of an alias, its history too")
    show.add_argument("version", help="a version, champion or challenger")
    show.add_argument("--card", action="store_true", help="the model card instead")
    verify = command("verify", _verify, "check every file, and signatures; exits with 2 where one does not hold")
    verify.add_argument("versions", nargs="*", metavar="version", help="all when none is named")
    add = command("add", _add, "add a model directory; prints the version's name")
    add.add_argument("directory")
    sign = command("sign", _sign, "sign a version that is there")
    sign.add_argument("version", help="a version, champion or challenger")
    promotion = command("promote", _promote, "have an alias name a version; running streams follow it")
    promotion.add_argument("version", help="a version, or challenger")
    export = command("export", _export, "put a version into MLflow's model registry; prints its name there")
    export.add_argument("version", help="a version, champion or challenger")
    export.add_argument(
        "--mlflow_name", metavar="NAME", help="of the registered model (the version's, less its digits)"
    )
    imported = command("import", _import, "take a version out of MLflow's model registry; prints its name here")
    imported.add_argument("model", help="models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID/PATH")
    back = command("rollback", _rollback, "have an alias name what it named before")
    promotion.add_argument(
        "--evidence", nargs="+", metavar="FILE", help="what --shadow_sink wrote, and labels: transaction_id, is_fraud"
    )
    promotion.add_argument("--label_delay", metavar="SPAN", help="until labels are known (as the champion was trained)")
    promotion.add_argument("--seed", type=int, default=0, metavar="N", help="of the resampling (%(default)s)")
    promotion.add_argument("--override", default="", metavar="REASON", help="promote whatever speaks against it")
    for each in (promotion, back):
        each.add_argument("--alias", choices=ALIASES, default="champion", help="which (%(default)s)")
        each.add_argument("--reason", default="", metavar="TEXT", help="for the history")
    for each in (add, sign):
        each.add_argument("--signing_key", metavar="FILE", help="private key of Ed25519, PEM")
    for each in (export, imported):
        each.add_argument("--mlflow", metavar="URI", help=f"MLflow's server ({MLFLOW_VARIABLE})")
    for each in (verify, promotion, imported):
        each.add_argument("--public_key", metavar="FILE", help="whose signature is asked for, PEM")
    return parser


if __name__ == "__main__":
    sys.exit(main())
