"""Archives of a JVM's classes: written once, kept, used."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.flink.class_archive import keep_class_archives, with_class_archive
from runners.local.cache import cache_directory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache_directory().mkdir(parents=True)
    return cache_directory()


@pytest.fixture
def java(tmp_path: Path) -> str:
    """What stands for a JVM."""
    path = tmp_path / "java"
    path.touch()
    return str(path)


def archive(argv: tuple[str, ...]) -> tuple[str, Path]:
    """What a command line does with an archive, and which."""
    (flag,) = (word for word in argv if word.startswith(("-XX:SharedArchiveFile=", "-XX:ArchiveClassesAtExit=")))
    what, _, file = flag.partition("=")
    return what, Path(file)


def test_the_first_writes_what_the_next_use(java: str, cache: Path, tmp_path: Path) -> None:
    """In its own directory at first: an archive is in the cache once it is whole."""
    argv = (java, "-Xmx1g", "-cp", "a.jar:b.jar", "Main")
    first = with_class_archive(argv, "jobmanager", tmp_path)
    what, written = archive(first)
    assert (what, written.parent) == ("-XX:ArchiveClassesAtExit", tmp_path)
    assert [word for word in first if word in argv] == list(argv)
    assert archive(with_class_archive(argv, "jobmanager", tmp_path)) == (what, written)

    written.write_bytes(b"first")
    keep_class_archives(tmp_path)
    assert not written.exists()
    what, kept = archive(with_class_archive(argv, "jobmanager", tmp_path))
    assert (what, kept) == ("-XX:SharedArchiveFile", cache / written.name)
    assert kept.read_bytes() == b"first"


def test_the_first_of_a_kind_is_kept(java: str, cache: Path, tmp_path: Path) -> None:
    """A running JVM may have it mapped: it stays as it is, and nothing else is left."""
    for content in (b"first", b"second"):
        (tmp_path / "x.classes.jsa").write_bytes(content)
        keep_class_archives(tmp_path)
    assert [(path.name, path.read_bytes()) for path in cache.iterdir()] == [("x.classes.jsa", b"first")]
    assert not list(tmp_path.glob("*.jsa"))


def test_what_a_killed_jvm_has_begun_is_not_kept(cache: Path, tmp_path: Path) -> None:
    """It has no head yet; the next JVM writes its own."""
    (tmp_path / "x.classes.jsa").write_bytes(bytes(1000))
    keep_class_archives(tmp_path)
    assert not list(cache.iterdir())
    assert not list(tmp_path.glob("*.jsa"))


def test_without_a_cache_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping a cluster is no error for that."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "absent"))
    (tmp_path / "x.classes.jsa").write_bytes(b"whole")
    keep_class_archives(tmp_path)
    assert not list(tmp_path.glob("*.jsa"))


def test_an_archive_is_of_one_java_and_one_class_path(java: str, tmp_path: Path) -> None:
    """Classes of others do not fit."""
    other = tmp_path / "other-java"
    other.touch()
    lines = [(java, "-cp", "a.jar", "Main"), (java, "-cp", "b.jar", "Main"), (str(other), "-cp", "a.jar", "Main")]
    assert len({archive(with_class_archive(line, "jobmanager", tmp_path))[1] for line in lines}) == 3
    assert len({archive(with_class_archive(lines[0], name, tmp_path))[1] for name in ("jobmanager", "zookeeper")}) == 2
