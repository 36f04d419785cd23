"""Build the alert function's zip: `python deploy/lambda/build.py --output dist/fraud_alert.zip`.

The same sources give the same bytes, on any machine: files are in order of their names, stored as they are, and
without their times. Lambda's runtime brings boto3, so nothing has to be installed into the zip.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUNCTION = ROOT / "deploy" / "lambda" / "fraud_alert"
#: What the function shares with the pipeline: modules that need nothing but Python.
SHARED = ("transforms/__init__.py", "transforms/alert_text.py", "transforms/card_numbers.py")
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def build(output: Path) -> str:
    """Write the zip; its sha256 in base64, as Lambda reports it (`CodeSha256`).

    Args:
        output: the file; its directory is created.
    """
    files = {path.name: path for path in FUNCTION.glob("*.py")} | {name: ROOT / name for name in SHARED}
    output.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.create_system = 3  # Unix, wherever it is built: only then do the permissions count
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name].read_bytes())
    return base64.b64encode(hashlib.sha256(output.read_bytes()).digest()).decode()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Build the alert function's zip for AWS Lambda.")
    parser.add_argument("--output", type=Path, default=Path("dist/fraud_alert.zip"), help="the file (%(default)s)")
    output = parser.parse_args(argv).output
    try:
        digest = build(output)
    except OSError as error:
        print(f"cannot write {output}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{output}: {output.stat().st_size:,} bytes, CodeSha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
