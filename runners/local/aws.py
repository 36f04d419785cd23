"""ministack: a stand-in for AWS that really runs Lambda functions, behind SNS, SQS and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from botocore.exceptions import ClientError

from runners.local.alert_function import FUNCTION, deploy_alert_function
from runners.local.aws_api import CREDENTIALS, REGION, AwsServer
from runners.local.ports import HOST
from runners.local.processes import Command
from runners.local.venv import python_with
from runners.local.versions import MINISTACK, MINISTACK_EXTRAS

ACCOUNT = "000000000000"
TOPIC, QUEUE, DEAD_LETTERS = "fraud-alerts", "fraud-alerts", "fraud-dead-letters"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/fraud"


@dataclass(frozen=True)
class Aws(AwsServer):
    """Lambda, SNS, SQS, Secrets Manager and more, with a topic, two queues and the alert function when it is built.

    It saves what it has when it is stopped. When it is killed, it has lost what came in since it was started: queues
    are empty, functions of one's own are gone.

    Attributes:
        directory, port: as of every server.
        alert_zip: the alert function; what is not there is not deployed.
    """

    alert_zip: Path = Path("dist", "fraud_alert.zip")

    name: ClassVar[str] = "lambda"
    default_port: ClassVar[int] = 4566
    services: ClassVar[tuple[str, ...]] = ("lambda", "sns", "sqs", "secrets_manager")

    @property
    def topic_arn(self) -> str:
        """The SNS topic for alerts."""
        return f"arn:aws:sns:{REGION}:{ACCOUNT}:{TOPIC}"

    @property
    def queue_url(self) -> str:
        """The SQS queue for alerts."""
        return f"{self.endpoint}/{ACCOUNT}/{QUEUE}"

    @property
    def dead_letters_url(self) -> str:
        """The SQS queue for dead letters."""
        return f"{self.endpoint}/{ACCOUNT}/{DEAD_LETTERS}"

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        function = [("--alert", f"lambda://{FUNCTION}")] if self.alert_zip.is_file() else []
        queues = [("--alert", f"sqs://{QUEUE}"), ("--dead_letters", f"sqs://{DEAD_LETTERS}")]
        return [*function, ("--alert", f"sns://{self.topic_arn}"), *queues]

    def install(self) -> Path:
        packages = (f"ministack=={MINISTACK}", *MINISTACK_EXTRAS)
        return python_with(
            "ministack", MINISTACK, packages, "fetching it with pip into an environment of its own, 140 MB"
        )

    def command(self, installation: Path) -> Command:
        state, temporary = self.directory / "data", self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = {
            **CREDENTIALS,
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_HOST": HOST,
            "MINISTACK_REGION": REGION,
            "LAMBDA_EXECUTOR": "local",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(state),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(state / "s3"),
            "TMPDIR": str(temporary),  # where it unpacks functions
            # These two would listen on every interface.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }
        return Command((str(installation), "-m", "ministack"), self.directory, environment)

    def ask(self) -> object:
        return self.client("sqs").list_queues()

    def prepare(self) -> None:
        self.client("sns").create_topic(Name=TOPIC)
        for queue in (QUEUE, DEAD_LETTERS):
            self.client("sqs").create_queue(QueueName=queue)
        if self.alert_zip.is_file():
            deploy_alert_function(self, self.alert_zip)

    def deploy_function(
        self, name: str, package: Path, handler: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Create a Python function, or replace its code.

        Args:
            name: of the function.
            package: a zip.
            handler: `module.function` in it.
            environment: variables it gets. They are what they were when it is only replaced.

        Raises:
            ClientError: the server refused.
            WaiterError: it was not ready in time.
        """
        client = self.client("lambda")
        code = package.read_bytes()
        try:
            client.create_function(
                FunctionName=name,
                Runtime="python3.11",
                Role=ROLE,
                Handler=handler,
                Code={"ZipFile": code},
                Timeout=30,
                Environment={"Variables": dict(environment or {})},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceConflictException":
                raise
            client.update_function_code(FunctionName=name, ZipFile=code)
        client.get_waiter("function_active_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 0.05, "MaxAttempts": 200}
        )
