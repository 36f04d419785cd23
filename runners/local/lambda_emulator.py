"""AWS's own emulator of the Lambda runtime, around one function's zip."""

from __future__ import annotations

import platform
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import msgspec

from runners.local.aws_api import CREDENTIALS, AwsServer
from runners.local.cache import installed
from runners.local.ports import HOST, free_port
from runners.local.processes import Command
from runners.local.tools import run_program
from runners.local.venv import python_with
from runners.local.versions import LAMBDA_RUNTIME, SAM_CLI
from transforms.errors import UserError

FUNCTION = "function"  # the only name that the emulator knows
_MACHINES = {"x86_64": "x86_64", "aarch64": "arm64"}


@dataclass(frozen=True)
class LambdaEmulator(AwsServer):
    """One Python function as AWS runs it: its zip unpacked, its process started by the runtime's interface.

    One call at a time: the emulator dies of two. Calls of type Event are carried out before they are answered.

    Attributes:
        directory, port: as of every server.
        package: the function's zip.
        handler: `module.function` in it.
        variables: of its environment.
    """

    package: Path
    handler: str
    variables: Mapping[str, str] = field(default_factory=dict)

    name: ClassVar[str] = "lambda-emulator"
    default_port: ClassVar[int] = 8080
    services: ClassVar[tuple[str, ...]] = ("lambda",)

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--alert", f"lambda://{FUNCTION}")]

    def install(self) -> Path:
        return installed("aws-lambda-rie", SAM_CLI, _fetch, "fetching the wheel with pip that carries it, 8 MB")

    def command(self, installation: Path) -> Command:
        task = self.directory / "task"
        shutil.rmtree(task, ignore_errors=True)
        with zipfile.ZipFile(self.package) as archive:
            archive.extractall(task)
        packages = [f"{name}=={version}" for name, version in LAMBDA_RUNTIME.items()]
        version = "-".join(LAMBDA_RUNTIME.values())
        python = python_with(
            "lambda-runtime", version, packages, "fetching it with pip into its own environment, 40 MB"
        )
        addresses = ["--runtime-interface-emulator-address", self.address]
        addresses += ["--runtime-api-address", f"{HOST}:{free_port()}"]
        argv = (str(installation / "aws-lambda-rie"), *addresses, str(python), "-m", "awslambdaric", self.handler)
        environment = {**CREDENTIALS, "LAMBDA_TASK_ROOT": str(task), "_HANDLER": self.handler, **self.variables}
        return Command(argv, task, environment)

    def ask(self) -> object:
        return None  # a call would run the function: that it listens has to do

    def invoke(self, event: object) -> object:
        """Run the function.

        Args:
            event: what it gets, as JSON.

        Returns:
            What it returned. An error of its own is an object with `errorType` and `errorMessage`.
        """
        answer = self.client().invoke(FunctionName=FUNCTION, Payload=msgspec.json.encode(event))
        result: object = msgspec.json.decode(answer["Payload"].read())
        return result


def _fetch(directory: Path) -> None:
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        raise UserError(
            f"AWS's Lambda runtime emulator is made for Linux on {' and '.join(_MACHINES)}, "
            f"and this is {platform.system()} on {platform.machine()}"
        )
    purpose = f"fetching aws-sam-cli {SAM_CLI}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    run_program([*pip, "--dest", str(directory), f"aws-sam-cli=={SAM_CLI}"], purpose)
    (wheel,) = directory.glob("*.whl")
    program = directory / "aws-lambda-rie"
    with zipfile.ZipFile(wheel) as archive:
        program.write_bytes(archive.read(f"samcli/local/rapid/aws-lambda-rie-{machine}"))
    program.chmod(0o755)
    wheel.unlink()
