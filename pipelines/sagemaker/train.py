"""The training command as a SageMaker job, in a script-mode container or in one of one's own.

SageMaker puts each channel's files under /opt/ml/input/data/NAME and keeps what lies in /opt/ml/model. A script-mode
container says so in SM_CHANNEL_NAME and SM_MODEL_DIR and gives hyperparameters as flags; in another container they are
its arguments, or in /opt/ml/input/config/hyperparameters.json. They are the flags of `python -m pipelines.training`,
less `--source`, `--labels` and `--output`, which come from the channels `training` and `labels` and the model's
directory.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pipelines.sagemaker.container import base, files_url, told
from pipelines.training.__main__ import run
from transforms.errors import UserError

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
    refuse_given(argv)
    training, labels = _channel("training", environment), _channel("labels", environment)
    if training is None:
        raise UserError("SM_CHANNEL_TRAINING is not set: give the job a channel called training")
    given = ["--source", files_url("channel training", training)]
    if labels is not None:
        given += ["--labels", files_url("channel labels", labels)]
    return [*argv, *given, "--output", str(output)]


def refuse_given(argv: Sequence[str]) -> None:
    """Refuse flags that are not a job's to give.

    Raises:
        UserError: names the flag.
    """
    for flag in _GIVEN:
        if any(argument.split("=")[0] == flag for argument in argv):
            raise UserError(f"{flag} cannot be a hyperparameter: it comes from the job's channels and model directory")


def _channel(name: str, environment: Mapping[str, str]) -> Path | None:
    """Where a channel's files are; None: the job has no such channel."""
    if named := environment.get(f"SM_CHANNEL_{name.upper()}"):
        return Path(named)
    place = base(environment) / "input" / "data" / name
    return place if place.is_dir() else None


def _hyperparameters(environment: Mapping[str, str]) -> list[str]:
    """Hyperparameters of a container that is not given them as flags."""
    file = base(environment) / "input" / "config" / "hyperparameters.json"
    try:
        values = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{file} does not hold hyperparameters, names with text: {error}") from error
    # Names that begin with sagemaker_ are the service's own.
    flags = [(name, value) for name, value in values.items() if not name.startswith("sagemaker_")]
    return [word for name, value in flags for word in (f"--{name.removeprefix('--')}", value)]


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Train, and leave the model where SageMaker keeps it; returns 0, or 2 after a mistake of the user's."""
    environment = os.environ if environment is None else environment
    with told(environment) as ended, tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "model"
        mine = list(sys.argv[1:] if argv is None else argv) or _hyperparameters(environment)
        if not any(each.split("=")[0] == "--name" for each in mine):
            job = environment.get("SM_TRAINING_JOB_NAME") or environment.get("TRAINING_JOB_NAME") or "sagemaker"
            mine += ["--name", job.lower()]
        run(arguments(mine, environment, output))
        # The directory is there already, and may be a mount: the model's contents come, it stays.
        place = environment.get("SM_MODEL_DIR") or base(environment) / "model"
        shutil.copytree(output, place, dirs_exist_ok=True)
    return ended.code


if __name__ == "__main__":
    sys.exit(main())
