"""How a node's memory is shared out."""

from __future__ import annotations

import pytest

from runners.emr.sizes import node_sizes
from transforms.errors import UserError


@pytest.mark.parametrize(
    ("instance_type", "slots", "workers"), [("m6i.xlarge", 2, 4), ("m7g.2xlarge", 8, 8), ("r6g.xlarge", 4, 8)]
)
def test_the_shares_fit_into_the_node(instance_type: str, slots: int, workers: int) -> None:
    """YARN, the workers and the system together take no more than there is, and both of Flink's processes fit."""
    total = {"m6i.xlarge": 16, "m7g.2xlarge": 32, "r6g.xlarge": 32}[instance_type] * 1024
    sizes = node_sizes(instance_type, slots, workers)
    assert sizes.yarn + workers * 1536 + 2048 <= total
    assert sizes.task_manager + sizes.job_manager <= sizes.yarn
    assert 2 * sizes.task_manager > sizes.yarn  # a second TaskManager on a node would have its workers in no budget


def test_more_for_workers_is_less_for_flink() -> None:
    """What a worker is given is taken from YARN's share, for each worker."""
    assert node_sizes("r6i.xlarge", 4, 4, worker=2560).yarn == node_sizes("r6i.xlarge", 4, 4).yarn - 4 * 1024


def test_what_is_too_small_is_refused() -> None:
    """The message counts up where the memory goes."""
    with pytest.raises(UserError, match=r"^c6i.xlarge has 8192 MiB: less 2560 .*, 4 x 1536 .* TaskManager"):
        node_sizes("c6i.xlarge", 4, 4)


def test_slots_have_cores() -> None:
    """A slot can keep a core busy, so there are no more slots than cores."""
    with pytest.raises(UserError, match="has 4 vCPUs for 8 slots"):
        node_sizes("r6i.xlarge", 8, 4)


def test_unknown_types_are_given_in_numbers() -> None:
    """A type whose name says nothing needs --node_memory, and has it."""
    with pytest.raises(UserError, match="--node_memory"):
        node_sizes("x2idn.16xlarge", 8, 8)
    assert node_sizes("x2idn.16xlarge", 8, 8, memory=65_536).slots == 8
