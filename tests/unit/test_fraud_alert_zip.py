"""The alert function's zip: the same bytes from the same sources, and all that the function needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

lambda_build = import_module("deploy.lambda.build")  # "lambda" is a keyword


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the time, the order of a directory or the permissions of a checkout gets in."""
    first, second = tmp_path / "a" / "one.zip", tmp_path / "b" / "two.zip"
    assert lambda_build.main(["--output", str(first)]) == 0
    previous = os.umask(0o077)
    try:
        assert lambda_build.main(["--output", str(second)]) == 0
    finally:
        os.umask(previous)
    assert first.read_bytes() == second.read_bytes()
    entries = zipfile.ZipFile(first).infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}


def test_the_zip_holds_all_that_the_handler_imports(tmp_path: Path) -> None:
    """Alone, without this project and without Beam, it has its handler and refuses an environment that says nothing."""
    output = tmp_path / "fraud_alert.zip"
    lambda_build.build(output)
    zipfile.ZipFile(output).extractall(tmp_path / "task")
    program = (
        "import sys; from lambda_handler import lambda_handler; assert 'apache_beam' not in sys.modules; "
        "lambda_handler({'alerts': []}, type('Context', (), {'get_remaining_time_in_millis': lambda self: 1000})())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHONPATH"))}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "task", env=environment, capture_output=True, text=True
    )
    assert "SettingsError: ALERT_TABLE is not set" in result.stderr


def test_a_place_that_cannot_be_written_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the file, and the exit code is 2."""
    (tmp_path / "file").touch()
    assert lambda_build.main(["--output", str(tmp_path / "file" / "x.zip")]) == 2
    assert "x.zip" in capsys.readouterr().err


def test_the_readme_names_the_settings_and_the_rights_that_the_function_needs() -> None:
    """Its policies are JSON, they allow each call that the code makes, and its table has each variable read."""
    directory = Path("deploy", "lambda", "fraud_alert")
    readme = (directory / "README.md").read_text("utf-8")
    trust, policy = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", readme, re.DOTALL))
    assert trust["Statement"][0]["Action"] == "sts:AssumeRole"
    code = "".join(path.read_text("utf-8") for path in directory.glob("*.py"))
    calls = {
        "dynamodb:UpdateItem": r"dynamodb\.update_item\(",
        "sns:Publish": r"sns\.publish_batch\(",
        "secretsmanager:GetSecretValue": r"secrets\.get_secret_value\(",
    }
    assert len(re.findall(r"self\.(?:dynamodb|sns|secrets)\.\w+\(", code)) == len(calls)
    for action, call in calls.items():
        assert re.search(call, code)
        assert action in json.dumps(policy)
    variables = set(re.findall(r'environment, "([A-Z_]+)"', code))
    assert variables == set(re.findall(r"^\| `([A-Z_]+)` \|", readme, re.MULTILINE))
