"""The command line of training: every mistake is one line and an exit code, before anything is read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.training.__main__ import main

GOOD = ["--source", "file:/nowhere/*.parquet", "--model", "logistic", "--output"]


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line a refused command prints."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "random"], "--split random is refused: transactions of one stolen card would be on both sides"),
        (["--resample", "smote"], "--resample smote is refused: repeated or made-up frauds would be on both sides"),
        (["--trian_to", "2018-08-01"], "unknown argument --trian_to; did you mean --train_to?"),
        (["--train_t=2018-08-01"], "unknown argument --train_t=2018-08-01; did you mean --train_to?"),
        (["--model", "logstic"], "invalid choice: 'logstic'"),
        (["--train_from", "25/07/2018"], "--train_from '25/07/2018' is not a date; write it as 2018-07-25"),
        (["--test_days", "0"], "--test_days '0' is not a whole number of days"),
        (["--test_days", "1.5"], "--test_days '1.5' is not a whole number of days"),
        (["--seed", "-1"], "--seed '-1' is not a whole number from 0"),
        (["--review_cost", "five"], "--review_cost 'five' is not an amount"),
        (["--review_cost", "-5"], "--review_cost '-5' is not an amount"),
        (["--decline_cost", "1.005"], "--decline_cost '1.005' is not an amount of 0 or more with at most 2 decimals"),
        (["--decline_cost", "nan"], "--decline_cost 'nan' is not an amount"),
        (["--label_delay", "a week"], "'a week' is not a duration"),
        (["--name", "My Model"], "'My Model' cannot name a model"),
        (["--schema", "handbok"], "did you mean handbook?"),
        (["--features", "creditcrad"], "did you mean creditcard?"),
        (["--class_weight", "smote"], "invalid choice: 'smote'"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    """A wrong flag or value is named, with what would be right, and nothing is written."""
    assert message in _error(capsys, *GOOD, str(tmp_path / "m"), *arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Without its required flags the command names them."""
    assert "the following arguments are required: --source, --model, --output" in _error(capsys)


def test_a_place_with_other_files_is_refused_before_reading(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An output directory that is no model is refused at once and not after an hour of training."""
    (tmp_path / "precious.txt").write_text("")
    assert "is not a model directory: it holds precious.txt" in _error(capsys, *GOOD, str(tmp_path), "--name", "mine")


def test_help_is_worth_reading(capsys: pytest.CaptureFixture[str]) -> None:
    """The help has examples and does not offer what would only be refused."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "--resample" not in text


def test_a_missing_xgboost_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, or installed without its system library: one error that says what to install."""
    from pipelines.training.fit import _import_xgboost
    from transforms.errors import UserError

    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(UserError, match="needs the package xgboost"):
        _import_xgboost()


def test_an_xgboost_without_openmp_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a Mac without libomp xgboost raises its own error at import: the remedy is named."""
    from pipelines.training.fit import _import_xgboost
    from transforms.errors import UserError

    (tmp_path / "xgboost.py").write_text(
        "raise ValueError('\\nXGBoost Library (libxgboost.dylib) could not be loaded')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "xgboost", raising=False)
    with pytest.raises(UserError, match=r"libxgboost\.dylib\) could not be loaded.*brew install libomp"):
        _import_xgboost()


def test_a_network_without_keras_is_refused_before_reading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without the extra one line says what to install, at once and not after an hour of features."""
    monkeypatch.setitem(sys.modules, "keras", None)
    said = _error(capsys, *GOOD, str(tmp_path / "m"), "--model", "neural")
    assert "--model neural needs Keras and JAX" in said
    assert "pip install 'fraud-detection-beam[neural]'" in said
