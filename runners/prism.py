"""Prism, Beam's local runner that streams: found, built or downloaded.

`python -m runners.prism get` prints where it is, after having got it when it was nowhere.
"""

from __future__ import annotations

import argparse
import mmap
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import apache_beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.prism_runner import PrismJobServer

from runners.local.cache import cache_directory, installed
from runners.local.tools import run_program, say
from transforms.errors import UserError

#: Prism and the SDK speak to each other in terms that belong to one release.
VERSION: str = apache_beam.__version__
_MODULE = "github.com/apache/beam/sdks/v2"
#: How Go writes down in a program which module, in which version, it was built from.
_BUILT_FROM = re.compile(rb"\tgithub\.com/apache/beam/sdks/v2/go/cmd/prism\nmod\t[^\t\n]+\t(?:v(\d+\.\d+\.\d+)[\t\n])?")
_HELP = "`python -m runners.prism get` builds it with Go or downloads it"


def find_prism() -> Path | None:
    """Prism of the installed Beam's version: at the path in `$PRISM`, on the PATH, or in the cache.

    Returns:
        The program, or None when there is none; nothing is built or downloaded.

    Raises:
        UserError: what `$PRISM` names is no Prism, or one of another version.
    """
    named = os.environ.get("PRISM")
    if named:
        problem = what_is_wrong_with(Path(named))
        if problem:
            raise UserError(f"PRISM={named}: {problem}; {_HELP} of the right version when PRISM is not set")
        return Path(named)
    on_path = shutil.which("prism")
    # Other programs are called prism too: what is no Prism, or not the right one, is passed over.
    if on_path is not None and not what_is_wrong_with(Path(on_path)):
        return Path(on_path)
    cached = cache_directory() / f"prism-{VERSION}" / "prism"
    return cached if cached.exists() else None


def get_prism() -> Path:
    """Prism as `find_prism` finds it, or else built with Go, or else downloaded from Beam's release.

    Raises:
        UserError: none of it was possible.
    """
    return find_prism() or installed("prism", VERSION, _fetch, "it is nowhere yet") / "prism"


def what_is_wrong_with(program: Path) -> str:
    """Why a file cannot be used as Prism with the installed Beam; empty when it can.

    Of a Prism that was built from a checkout its version is not known; it is taken at its word.
    """
    if not program.is_file():
        return "there is no such file"
    if not os.access(program, os.X_OK):
        return "it cannot be executed"
    if program.stat().st_size == 0:
        return "it is empty"
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        built_from = _BUILT_FROM.search(content)
        version = built_from[1].decode() if built_from and built_from[1] else None
    if built_from is None:
        return "it is not Beam's Prism"
    return f"it belongs to Beam {version}, and Beam {VERSION} is installed" if version not in (None, VERSION) else ""


def _fetch(directory: Path) -> None:
    failures = []
    for way in (_build, _download):
        try:
            way(directory)
        except UserError as error:
            failures.append(str(error))
        else:
            return
    raise UserError("Prism can be had neither way:\n" + "\n".join(failures))


def _build(directory: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise UserError("building Prism needs go, which is not on the PATH: apt install golang, or brew install go")
    say(f"building Prism {VERSION} with {go}: one to two minutes")
    package = f"{_MODULE}/go/cmd/prism@v{VERSION}"
    run_program([go, "install", package], "building Prism", directory, {"GOBIN": str(directory)})


def _download(directory: Path) -> None:
    """Let Beam fetch what it releases for this platform, as it would do unasked for `--runner=PrismRunner`."""
    url = PrismJobServer(PipelineOptions()).path_to_binary()
    say(f"downloading Prism {VERSION} for {platform.system()} on {platform.machine()}: {url}")
    with tempfile.TemporaryDirectory(dir=directory) as aside:
        try:
            program = Path(PrismJobServer.local_bin(url, bin_cache=aside))
        except (RuntimeError, OSError, zipfile.BadZipFile) as error:
            raise UserError(f"downloading Prism: {error}") from error
        program.rename(directory / "prism")


def main(argv: Sequence[str] | None = None) -> int:
    """The command: `get` has Prism at hand and prints where; `find` only looks.

    Returns:
        0, or 2 when there is no Prism.
    """
    parser = argparse.ArgumentParser(prog="python -m runners.prism", description=__doc__)
    parser.add_argument("action", choices=("get", "find"), help="get: build or download it when it is not found")
    action = parser.parse_args(argv).action
    try:
        path = get_prism() if action == "get" else find_prism()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if path is None:
        print(f"error: there is no Prism {VERSION} on the PATH or in {cache_directory()}: {_HELP}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
