"""The training job of SageMaker: what its environment says becomes the training command's flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from io_connectors.sources import open_source
from pipelines.sagemaker.train import arguments, main
from transforms.errors import UserError
from transforms.schema import load_schema


def channel(directory: Path, *names: str) -> str:
    directory.mkdir()
    for name in names:
        (directory / name).write_text("TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT\n")
    return str(directory)


def test_channels_become_sources_that_open(tmp_path: Path) -> None:
    """All files of a channel, in directories below it too, as one source; hyperparameters stay as they are."""
    training = channel(tmp_path / "training", "day-1.csv", "day-2.csv", "_SUCCESS")
    found = arguments(["--model", "xgboost"], {"SM_CHANNEL_TRAINING": training}, tmp_path / "out")
    assert found == ["--model", "xgboost", "--source", f"file:{training}/**/*.csv", "--output", str(tmp_path / "out")]
    assert len(open_source(found[3], load_schema("handbook"), 100).files) == 2


def test_what_a_job_lacks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A channel, one kind of files in it, and flags that are not the job's to give."""
    mixed = channel(tmp_path / "mixed", "a.csv", "b.parquet")
    assert main(["--model", "logistic"], {}) == 2
    assert "give the job a channel called training" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"files of one kind.*found csv, parquet"):
        arguments([], {"SM_CHANNEL_TRAINING": mixed}, tmp_path)
    with pytest.raises(UserError, match="--output cannot be a hyperparameter"):
        arguments(["--output=x"], {"SM_CHANNEL_TRAINING": mixed}, tmp_path)
