"""The training command as a SageMaker script-mode job: `entry_point` of an estimator, its channels and hyperparameters.

SageMaker puts each channel's files under SM_CHANNEL_NAME, gives hyperparameters as flags, and keeps what lies in
SM_MODEL_DIR. Hyperparameters are the flags of `python -m pipelines.training`, less `--source`, `--labels` and
`--output`, which come from the channels `training` and `labels` and the model's directory.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.training.__main__ import main as train
from transforms.errors import UserError

#: What a channel's files may be called; see `io_connectors.sources`.
_ENDINGS = ("csv", "json", "jsonl", "parquet")
_GIVEN = ("--source", "--labels", "--output")


def arguments(argv: Sequence[str], environment: Mapping[str, str], output: Path) -> list[str]:
    """The training command's arguments for a job.

    Args:
        argv: the job's hyperparameters.
        environment: SageMaker's.
        output: the model directory to write.

    Raises:
        UserError: there is no channel `training`, a channel's files are of several kinds, or a flag is given twice.
    """
    for flag in _GIVEN:
        if any(argument.split("=")[0] == flag for argument in argv):
            raise UserError(f"{flag} cannot be a hyperparameter: it comes from the job's channels and model directory")
    if "SM_CHANNEL_TRAINING" not in environment:
        raise UserError("SM_CHANNEL_TRAINING is not set: give the job a channel called training")
    given = ["--source", _files("training", environment["SM_CHANNEL_TRAINING"])]
    if "SM_CHANNEL_LABELS" in environment:
        given += ["--labels", _files("labels", environment["SM_CHANNEL_LABELS"])]
    return [*argv, *given, "--output", str(output)]


def _files(channel: str, place: str) -> str:
    """The files of a channel as a source's URL."""
    found = {path.name.partition(".")[2] for path in Path(place).rglob("*") if path.is_file()}
    kinds = sorted(kind for kind in found if kind.split(".")[0] in _ENDINGS)
    if len(kinds) != 1:
        raise UserError(
            f"channel {channel} must hold files of one kind, such as *.parquet or *.csv.gz; found "
            f"{', '.join(kinds) or 'none'}"
        )
    return f"file:{place}/**/*.{kinds[0]}"


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Train, and leave the model where SageMaker keeps it; returns the training command's exit code."""
    environment = os.environ if environment is None else environment
    try:
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "model"
            name = environment.get("SM_TRAINING_JOB_NAME", "sagemaker")
            mine = list(sys.argv[1:] if argv is None else argv)
            named = mine if any(each.split("=")[0] == "--name" for each in mine) else [*mine, "--name", name.lower()]
            code = train(arguments(named, environment, output))
            if code == 0:  # SM_MODEL_DIR is there already, and may be a mount: its contents come, it stays
                shutil.copytree(output, environment.get("SM_MODEL_DIR", "/opt/ml/model"), dirs_exist_ok=True)
            return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
