"""Programs of the machine that the servers need: where they are, and how to get them when they are not."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transforms.errors import UserError

#: Program to how it is had on Debian and on macOS.
SOURCES = {
    "java": "apt install default-jdk-headless, or brew install openjdk",
    "javac": "apt install default-jdk-headless, or brew install openjdk",
    "keytool": "apt install default-jdk-headless, or brew install openjdk",
    "mvn": "apt install maven, or brew install maven",
    "node": "apt install nodejs, or brew install node",
    "npm": "apt install npm, or brew install node",
    "go": "apt install golang, or brew install go",
    "openssl": "apt install openssl, or brew install openssl",
}


def find_program(name: str, purpose: str) -> str:
    """The path of a program.

    Args:
        name: one of `SOURCES`.
        purpose: what needs it.

    Raises:
        UserError: it is not on the PATH.
    """
    path = shutil.which(name)
    if path is None:
        raise UserError(f"{purpose} needs {name}, which is not on the PATH: {SOURCES[name]}")
    return path


def run_program(
    argv: Sequence[str | Path],
    purpose: str,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    user: str | None = None,
) -> str:
    """Run a program to its end and return what it said.

    Args:
        argv: the program and its arguments.
        purpose: what it is run for, as an error begins.
        directory: it runs in.
        environment: variables on top of this process's.
        stdin: what it reads.
        user: as whom it runs, when not as us.

    Raises:
        UserError: it failed; the message ends with the last lines of what it said.
    """
    result: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603 - argv is ours
        [str(word) for word in argv],
        cwd=directory,
        env={**os.environ, **(environment or {})},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **as_user(user),
    )
    if result.returncode != 0:
        raise UserError(
            f"{purpose}: {Path(str(argv[0])).name} ended with {result.returncode}:\n{last_lines(result.stdout)}"
        )
    return result.stdout


def as_user(user: str | None) -> dict[str, Any]:
    """What `subprocess` has to be told to run something as another user, with none of our groups."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def say(text: str) -> None:
    """Tell whoever waits what takes so long; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def last_lines(text: str, count: int = 12) -> str:
    r"""The last lines that say something, indented. Where in its own code a Java program was says nothing.

    Example:
        >>> last_lines("one\ntwo\n\tat java.base/Files.open\n\nthree\n", count=2)
        '    two\n    three'
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    return "\n".join(f"    {line[:500]}" for line in lines[-count:])
