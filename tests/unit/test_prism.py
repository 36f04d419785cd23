"""Prism: where it is looked for, what is taken for it, and how it is had when it is nowhere."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from apache_beam.runners.portability.prism_runner import PrismJobServer

from runners.prism import VERSION, find_prism, get_prism, main, what_is_wrong_with
from transforms.errors import UserError

#: What Go writes into a program that it has built.
BUILT_FROM = "\x00path\tgithub.com/apache/beam/sdks/v2/go/cmd/prism\nmod\tgithub.com/apache/beam/sdks/v2\t{}\th1:x=\n"


def program(path: Path, version: str = f"v{VERSION}", mode: int = 0o755) -> Path:
    """A file that passes for a Prism of some version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF" + BUILT_FROM.format(version).encode())
    path.chmod(mode)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Prism; what is put into its `bin` is on the PATH."""
    monkeypatch.delenv("PRISM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def cached(bare: Path) -> Path:
    return bare / "cache" / "fraud-detection" / "servers" / f"prism-{VERSION}" / "prism"


def test_prism_is_found_in_its_places_in_their_order(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nowhere; then in the cache; before that on the PATH; before all where PRISM says."""
    assert find_prism() is None
    assert program(cached(bare)) == find_prism()
    assert program(bare / "bin" / "prism") == find_prism()
    named = program(bare / "elsewhere" / "my-prism")
    monkeypatch.setenv("PRISM", str(named))
    assert find_prism() == get_prism() == named


def test_a_prism_of_another_version_on_the_path_is_passed_over(bare: Path) -> None:
    """The one in the cache is of the right version, and is taken."""
    program(bare / "bin" / "prism", "v2.60.0")
    assert find_prism() is None
    program(cached(bare))
    assert find_prism() == cached(bare)


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (BUILT_FROM.format("v2.60.0"), 0o755, f"it belongs to Beam 2.60.0, and Beam {VERSION} is installed"),
        (BUILT_FROM.format(f"v{VERSION}"), 0o644, "it cannot be executed"),
        ("#!/bin/sh\n", 0o755, "it is not Beam's Prism"),
        ("", 0o755, "it is empty"),
        (BUILT_FROM.format(f"v{VERSION}"), 0o755, ""),
        (BUILT_FROM.format("(devel)"), 0o755, ""),
    ],
    ids=["older", "not executable", "another program", "empty", "right", "built from a checkout"],
)
def test_what_is_no_prism_of_this_beam_is_refused(
    content: str, mode: int, problem: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that PRISM names and that cannot be used is an error that says why; one that can is taken."""
    path = bare / "file"
    path.write_text(content)
    path.chmod(mode)
    assert what_is_wrong_with(path) == problem
    monkeypatch.setenv("PRISM", str(path))
    if problem:
        with pytest.raises(UserError, match=f"^PRISM={path}: {problem}; `python -m runners.prism get`"):
            find_prism()
    else:
        assert find_prism() == path


def test_a_path_in_prism_that_is_nowhere_is_refused(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and not a reason to look elsewhere."""
    program(cached(bare))
    monkeypatch.setenv("PRISM", "/nowhere/prism")
    with pytest.raises(UserError, match=r"^PRISM=/nowhere/prism: there is no such file; "):
        get_prism()


def go(bare: Path, script: str) -> None:
    """Put a `go` on the PATH."""
    path = bare / "bin" / "go"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_prism_is_built_with_go_where_there_is_go(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program of Beam's very version is built into the cache, once."""
    built = program(bare / "built")
    go(bare, f'echo "$@" >> "{bare}/said"; PATH=/usr/bin:/bin cp "{built}" "$GOBIN/prism"')
    assert [main(["get"]), main(["get"])] == [0, 0]
    assert capsys.readouterr().out == f"{cached(bare)}\n" * 2
    asked = f"install github.com/apache/beam/sdks/v2/go/cmd/prism@v{VERSION}\n"
    assert (bare / "said").read_text() == asked


def test_prism_is_downloaded_where_it_cannot_be_built(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without Go Beam's release is asked, and that is said first."""
    name = "apache_beam-prism"
    with zipfile.ZipFile(bare / f"{name}.zip", "w") as archive:
        archive.write(program(bare / "released"), name)
    monkeypatch.setattr(PrismJobServer, "path_to_binary", lambda self: (bare / f"{name}.zip").as_uri())
    assert get_prism() == cached(bare)
    assert cached(bare).stat().st_mode & 0o111
    assert [path.name for path in cached(bare).parent.iterdir()] == ["prism"]
    assert f"downloading Prism {VERSION} for " in capsys.readouterr().err


def test_both_failures_are_told_when_prism_cannot_be_had(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Go said and what the download said, in one error; nothing is left in the cache."""
    go(bare, "echo no such module >&2; exit 1")
    monkeypatch.setattr(PrismJobServer, "path_to_binary", lambda self: "file:///nowhere/prism.zip")
    assert main(["get"]) == 2
    said = capsys.readouterr().err
    assert "error: Prism can be had neither way:\nbuilding Prism: go ended with 1:\n    no such module\n" in said
    assert "downloading Prism: " in said
    assert main(["find"]) == 2
    assert f"error: there is no Prism {VERSION} on the PATH or in " in capsys.readouterr().err
