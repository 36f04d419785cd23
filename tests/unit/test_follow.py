"""A followed alias: what passes is swapped in, what does not is refused, and no batch waits or is mixed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_artifacts.aliases import Move, history, promote, rollback
from model_artifacts.follow import Follow, FollowedModel
from model_artifacts.registry import Registry, open_registry
from tests.small_models import FEATURES, SHIPPED, make_model
from transforms.durations import SECOND
from transforms.errors import UserError
from transforms.features import FeatureSet, load_feature_set

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ROW = np.ones((1, len(FEATURES.names)))


class World:
    """A registry with one champion, a clock to turn, and looks that are run when they are wanted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registry: Registry = open_registry(str(directory / "registry"))
        self.seconds = 0.0
        self.looks: list[Callable[[], None]] = []

    def add(self, name: str, key: Ed25519PrivateKey | None = None, **changed: Any) -> str:
        make_model(self.directory / name, name, **changed)
        return self.registry.add(self.directory / name, "ann", NOW, key).version

    def promote(self, version: str) -> None:
        moves = history(self.registry, "champion")
        promote(self.registry, "champion", Move(action="promote", version=version, at="", by="ann"), moves)

    def follow(self, **changed: Any) -> FollowedModel:
        settings: dict[str, Any] = {
            "uri": f"registry:{self.registry.url}#champion",
            "every": 30 * SECOND,
            "fingerprint": FEATURES.fingerprint,
            "schema": SHIPPED.schema,
        }
        return FollowedModel(Follow(**(settings | changed)), lambda: self.seconds, self.looks.append)

    def later(self, followed: FollowedModel, seconds: float = 31.0) -> str:
        """Let time pass and a batch come; which model serves after the look."""
        self.seconds += seconds
        followed.now()
        for look in self.looks:
            look()
        self.looks.clear()
        return followed.now().manifest.model_id


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_promoted_model_is_picked_up(world: World) -> None:
    """The alias is moved, and after `every` the new model serves; rolled back, the old one does again."""
    one, two = world.add("one"), world.add("two", intercept=-1.0)
    world.promote(one)
    followed = world.follow()
    world.promote(two)
    assert world.later(followed, seconds=29.0) == one
    assert world.later(followed, seconds=2.0) == two
    assert followed.take_counts() == {"swapped": 1}
    assert followed.take_counts() == {}
    rollback(world.registry, "champion", "ann", NOW)
    assert world.later(followed) == one


def test_scoring_does_not_wait_for_a_look(world: World) -> None:
    """However long a look takes, batches get the old model, and no second look is begun beside it."""
    one, two = world.add("one"), world.add("two", intercept=-1.0)
    world.promote(one)
    followed = world.follow()
    world.promote(two)
    for _ in range(5):
        world.seconds += 100.0
        assert followed.now().manifest.model_id == one
    (look,) = world.looks
    look()
    assert followed.now().manifest.model_id == two


def test_batches_of_before_are_decided_by_the_model_that_scored_them(world: World) -> None:
    """After swaps the old models are still had by their ids, from memory or, older ones, from the registry."""
    versions = [world.add(f"m{n}", intercept=-n / 10) for n in range(6)]
    world.promote(versions[0])
    followed = world.follow()
    first = followed.now()
    for version in versions[1:]:
        world.promote(version)
        assert world.later(followed) == version
    assert [followed.named(version).manifest.model_id for version in versions] == versions
    assert followed.named(versions[0]).score(ROW) == first.score(ROW)
    with pytest.raises(UserError, match="no version"):
        followed.named("stranger-0123456789ab")


def corrupt(world: World) -> str:
    version = world.add("corrupt", intercept=1.0)
    path = world.directory / "registry" / "versions" / version / "model.onnx"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    return version


def other_features(world: World) -> str:
    return world.add("other", feature_set=load_feature_set("handbook"), baseline=(1.0,) * 15)


def another_meaning(world: World) -> str:
    return world.add("cents", feature_set=FeatureSet(name="x", declared=FEATURES.declared, minor_digits=0))


BAD: dict[str, tuple[Callable[[World], str], str]] = {
    "corrupt": (corrupt, "was changed"),
    "of other features": (other_features, "takes features of fingerprint"),
    "of features of another meaning": (another_meaning, "takes features of fingerprint"),
    "of another schema": (lambda world: world.add("schema", schema="handbook"), "was trained on schema handbook"),
    "without a score": (
        lambda world: world.add("nan", weight=float("nan")),
        "gave a score that is no number",
    ),
    "removed": (lambda world: "gone-0123456789ab", "has no version"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_pass_is_refused(world: World, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The old model goes on; it is counted at each look, told once, and over when the alias is moved on."""
    make, why = BAD[kind]
    one, three = world.add("one"), world.add("three", intercept=-2.0)
    world.promote(one)
    followed = world.follow()
    world.promote(make(world))
    assert [world.later(followed) for _ in range(3)] == [one] * 3
    assert followed.take_counts() == {"refused": 3}
    (told,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert why in told
    assert "is refused, and what served before goes on" in told
    world.promote(three)
    assert world.later(followed) == three


def test_a_model_must_be_signed_where_signatures_are_asked_for(world: World) -> None:
    """Unsigned it is refused; once somebody with the key has signed it, the next look takes it."""
    key = Ed25519PrivateKey.generate()
    one, two = world.add("one", key=key), world.add("two", intercept=-1.0)
    world.promote(one)
    followed = world.follow(public_key=key.public_key().public_bytes_raw())
    world.promote(two)
    assert world.later(followed) == one
    world.registry.sign(two, key)
    assert world.later(followed) == two


def test_a_restart_serves_what_the_others_serve(world: World) -> None:
    """It begins with the newest version on the alias that can serve, not with a refused one, nor with the oldest."""
    one, two = world.add("one"), world.add("two", intercept=-1.0)
    world.promote(one)
    world.promote(two)
    world.promote(corrupt(world))
    assert world.follow().now().manifest.model_id == two
    with pytest.raises(UserError, match="none of the 3 versions it stands upon can serve"):
        world.follow(schema="another")


def test_a_registry_out_of_reach_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A look that fails is counted and told, and the next one succeeds."""
    one, two = world.add("one"), world.add("two", intercept=-1.0)
    world.promote(one)
    followed = world.follow()
    world.promote(two)
    with monkeypatch.context() as patched:

        def away(*_: object) -> bytes:
            raise OSError("no route to host")

        patched.setattr(Path, "read_bytes", away)
        assert world.later(followed) == one
    assert followed.take_counts() == {"failed": 1}
    assert "no route to host; will look again" in caplog.text
    assert world.later(followed) == two


def test_many_threads_score_while_models_are_swapped(world: World) -> None:
    """With real threads and a real clock every score is of the model that its batch names, and all versions serve."""
    versions = [world.add(f"m{n}", intercept=-n / 10) for n in range(5)]
    expected = {version: world.registry.model(version).score(ROW).item() for version in versions}
    world.promote(versions[0])
    followed = FollowedModel(
        Follow(f"registry:{world.registry.url}#champion", 10_000, FEATURES.fingerprint, SHIPPED.schema)
    )
    seen: list[tuple[str, float, float]] = []
    over = threading.Event()

    def score() -> None:
        while not over.is_set():
            model = followed.now()
            name, value = model.manifest.model_id, model.score(ROW).item()
            seen.append((name, value, followed.named(name).score(ROW).item()))

    threads = [threading.Thread(target=score) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in versions[1:]:
        world.promote(version)
        deadline = time.monotonic() + 20.0
        while not any(name == version for name, _, _ in seen[-100:]) and time.monotonic() < deadline:
            time.sleep(0.005)
    over.set()
    for thread in threads:
        thread.join()
    assert {name for name, _, _ in seen} == set(versions)
    assert all(value == again == expected[name] for name, value, again in seen)
