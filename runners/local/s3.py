"""versitygw: S3 in front of a directory, strict about signatures, checksums and conditional writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from runners.local.aws_api import ACCESS_KEY, REGION, SECRET_KEY, AwsServer
from runners.local.cache import installed
from runners.local.processes import Command
from runners.local.tools import find_program, run_program
from runners.local.versions import VERSITYGW

BUCKET = "fraud"


@dataclass(frozen=True)
class S3(AwsServer):
    """An S3 with the bucket `fraud`. Buckets are directories in its directory's `data`.

    Attributes:
        directory, port: as of every server.
    """

    name: ClassVar[str] = "s3"
    default_port: ClassVar[int] = 7070
    services: ClassVar[tuple[str, ...]] = ("s3",)

    @property
    def url(self) -> str:
        """Of a prefix in the bucket, as the pipeline takes it."""
        return f"s3://{BUCKET}/decisions"

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--sink", self.url), ("--dead_letters", f"s3://{BUCKET}/dead-letters")]

    def client(self, service: str = "", **settings: Any) -> Any:
        # Buckets as parts of the path: as parts of the host name they would have to be resolved.
        return super().client(service, **{"signature_version": "s3v4", "s3": {"addressing_style": "path"}, **settings})

    def install(self) -> Path:
        return installed("versitygw", VERSITYGW, _build, "building it with Go, up to a minute")

    def command(self, installation: Path) -> Command:
        directory = self.directory
        for name in ("data", "metadata"):
            (directory / name).mkdir(exist_ok=True)
        environment = {"ROOT_ACCESS_KEY_ID": ACCESS_KEY, "ROOT_SECRET_ACCESS_KEY": SECRET_KEY, "VGW_REGION": REGION}
        # Metadata apart from the data: not every file system takes them as extended attributes.
        storage = ["posix", "--sidecar", str(directory / "metadata"), str(directory / "data")]
        argv = (str(installation / "versitygw"), "--port", self.address, "--quiet", "--keep-alive", *storage)
        return Command(argv, self.directory, environment)

    def ask(self) -> object:
        return self.client().list_buckets()

    def prepare(self) -> None:
        self.create_bucket(BUCKET)

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket, unless it is there.

        Raises:
            ClientError: the server refused.
        """
        try:
            self.client().create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise


def _build(directory: Path) -> None:
    purpose = f"building versitygw {VERSITYGW}"
    package = f"github.com/versity/versitygw/cmd/versitygw@v{VERSITYGW}"
    run_program([find_program("go", purpose), "install", package], purpose, directory, {"GOBIN": str(directory)})
