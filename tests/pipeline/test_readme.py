"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.settings import load_settings

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_pipeline_of_ones_own_runs(capfd: pytest.CaptureFixture[str]) -> None:
    """The Python example runs as written and prints alerts."""
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102  # the README's own text
    assert "Alert(alert_id=" in capfd.readouterr().out


def test_the_settings_file_is_accepted(tmp_path: Path) -> None:
    """The first TOML example is a settings file as it stands."""
    (tmp_path / "fraud.toml").write_text(blocks("toml")[0], "utf-8")
    assert load_settings(tmp_path / "fraud.toml").rules[0].name == "first large purchase"
