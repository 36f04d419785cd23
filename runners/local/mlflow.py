"""MLflow's server, with its runs in SQLite and their artifacts in a folder."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from runners.local.ports import HOST
from runners.local.processes import Command
from runners.local.server import Server
from runners.local.venv import python_with
from runners.local.versions import MLFLOW


@dataclass(frozen=True)
class MlflowServer(Server):
    """MLflow: tracking, artifacts through the server, and the model registry.

    Attributes:
        directory, port: as of every server.
    """

    name: ClassVar[str] = "mlflow"
    default_port: ClassVar[int] = 5000

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://{self.address}"

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--mlflow", self.url)]

    @property
    def environment(self) -> Mapping[str, str]:
        return {"MLFLOW_TRACKING_URI": self.url}

    def install(self) -> Path:
        packages = (f"mlflow=={MLFLOW}",)
        return python_with("mlflow", MLFLOW, packages, "fetching it with pip into an environment of its own, 650 MB")

    def command(self, installation: Path) -> Command:
        stores = ["--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db"]
        stores += ["--artifacts-destination", str(self.directory / "artifacts")]
        address = ["--host", HOST, "--port", str(self.port), "--workers", "1"]
        argv = (str(installation), "-m", "mlflow", "server", *address, *stores)
        # It starts its web server by the name of a program.
        path = f"{installation.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return Command(argv, self.directory, {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path})

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310 - of loopback
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
