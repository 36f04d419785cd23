"""A local server for tests of what all of them have in common: it is there at once and needs nothing but Python."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from runners.local.ports import HOST
from runners.local.processes import Command
from runners.local.server import Server


@dataclass(frozen=True)
class Files(Server):
    """Serves the files of its directory."""

    name: ClassVar[str] = "files"
    default_port: ClassVar[int] = 8080
    patience: ClassVar[float] = 2.0
    #: Python that is run instead, when a test has some.
    code: ClassVar[str] = ""

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--source", f"http://{self.address}/")]

    def install(self) -> Path:
        return Path(sys.executable)

    def command(self, installation: Path) -> Command:
        serve = ["-c", self.code] if self.code else ["-m", "http.server", "--bind", HOST, str(self.port)]
        return Command((str(installation), *serve), self.directory)

    def answers(self) -> bool:
        with urllib.request.urlopen(f"http://{self.address}/") as answer:
            return bool(answer.status == 200)
