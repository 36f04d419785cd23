"""A registry in a bucket: the same promises as in a folder, kept by conditional puts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from model_artifacts.__main__ import main
from model_artifacts.aliases import Move, current, history, promote, rollback
from model_artifacts.artifact import load_model
from model_artifacts.follow import Follow, FollowedModel
from model_artifacts.registry import Registry, open_registry
from runners.local import S3
from tests.integration.faults import HttpFaultProxy
from tests.small_models import FEATURES, SHIPPED, make_model
from transforms.errors import UserError

BUCKETS = (f"models-{n}" for n in count())
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        if not name.startswith("AWS_ENDPOINT"):
            monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(s3: S3) -> str:
    name = next(BUCKETS)
    s3.create_bucket(name)
    return name


@pytest.fixture
def url(s3: S3, bucket: str) -> str:
    return f"s3://{bucket}/fraud/models?endpoint={s3.endpoint}"


@pytest.fixture
def registry(url: str) -> Registry:
    return open_registry(url)


def add(registry: Registry, directory: Path, name: str, intercept: float = -3.0) -> str:
    make_model(directory / name, name, intercept)
    return registry.add(directory / name, "ann", NOW).version


def move(version: str) -> Move:
    return Move(action="promote", version=version, at="", by="ann")


def test_the_life_of_a_model(
    registry: Registry, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], s3: S3, bucket: str
) -> None:
    """Added, promoted, followed, rolled back and verified; a damaged object is found."""
    one, two = add(registry, tmp_path, "one"), add(registry, tmp_path, "two", -1.0)
    assert registry.versions() == [one, two]
    promote(registry, "champion", move(one), [])
    uri = f"registry:{url}#champion"
    assert load_model(uri).manifest.model_id == one
    looks: list[Callable[[], None]] = []
    followed = FollowedModel(Follow(uri, 1, FEATURES.fingerprint, SHIPPED.schema), start=looks.append)
    assert main(["promote", two, "--registry", url, "--override", "to try it out"]) == 0
    followed.now()
    looks.pop()()
    assert followed.now().manifest.model_id == two
    assert rollback(registry, "champion", "ann", NOW).version == one
    capsys.readouterr()
    assert main(["verify", "--registry", url]) == 0
    s3.client().put_object(Bucket=bucket, Key=f"fraud/models/versions/{two}/model.onnx", Body=b"changed")
    assert main(["verify", "--registry", url]) == 2
    assert f"BAD  {two}" in capsys.readouterr().out


def test_of_two_who_promote_at_once_one_is_told(registry: Registry, tmp_path: Path) -> None:
    """Eight at once: one move is made, the others hear of it, and the history has it once."""
    versions = [add(registry, tmp_path, f"m{n}") for n in range(8)]
    told: list[str] = []
    gate = threading.Barrier(len(versions))

    def run(version: str) -> None:
        gate.wait()
        try:
            promote(registry, "champion", move(version), [])
        except UserError as error:
            told.append(str(error))

    threads = [threading.Thread(target=run, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 7
    assert all("somebody else moved champion" in each for each in told)
    assert [each.version for each in history(registry, "champion")] == [current(registry, "champion")]


def test_a_bucket_that_is_not_there_is_told(s3: S3, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, as a mistake of the user's."""
    assert main(["list", "--registry", f"s3://no-such-bucket/models?endpoint={s3.endpoint}"]) == 2
    assert "error: registry s3://no-such-bucket/models: " in capsys.readouterr().err


def test_another_model_does_not_replace_a_version(registry: Registry, tmp_path: Path) -> None:
    """What lies under a version's name stays, and whoever comes second with other files is told which differs."""
    add(registry, tmp_path, "one")
    (tmp_path / "one" / "MODEL_CARD.md").write_text("better than it is")
    with pytest.raises(UserError, match=r"MODEL_CARD\.md is there already and another one"):
        registry.add(tmp_path / "one", "bob", NOW)


@pytest.fixture
def proxy(s3: S3) -> Iterator[HttpFaultProxy]:
    host, port = s3.address.split(":")
    with HttpFaultProxy(host, int(port)) as running:
        yield running
