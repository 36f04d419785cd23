"""The lock as nodes get it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from runners.emr.lock import ARCHITECTURES, node_requirements
from transforms.errors import UserError

LOCK = (Path(__file__).parents[2] / "requirements.txt").read_text("utf-8")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nodes_get_every_pin_that_counts_there(architecture: str) -> None:
    """Each is pinned and hashed, Linux's own are in, those of other systems are out, and no other is lost."""
    lines = node_requirements(LOCK, architecture).splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+(?: --hash=sha256:[0-9a-f]{64})+", line) for line in lines)
    names = [Requirement(line.split(" ")[0]).name for line in lines]
    assert "xgboost-cpu" in names
    pinned = re.findall(r"(?m)^([a-z0-9-]+)==", LOCK)
    assert set(pinned) - set(names) == {"xgboost", "tzdata"}


def test_every_hash_of_a_pin_stays() -> None:
    """Which of them a node's wheel has is not decided here."""
    whole = LOCK[LOCK.index("\nnumpy==") :]
    block = whole[: whole.index("    # via")]
    (line,) = [line for line in node_requirements(LOCK, "x86_64").splitlines() if line.startswith("numpy==")]
    assert re.findall("sha256:[0-9a-f]+", line) == re.findall("sha256:[0-9a-f]+", block)


def test_a_pin_without_a_hash_is_refused() -> None:
    """It could become anything on the way."""
    with pytest.raises(UserError, match="pins numpy without a hash"):
        node_requirements("numpy==2.4.6\n", "x86_64")


def test_what_is_no_lock_is_refused() -> None:
    """A file of comments alone installs nothing."""
    with pytest.raises(UserError, match="pins nothing"):
        node_requirements("# nothing\n--only-binary :all:\n", "x86_64")
