"""What a call costs in numbers that do not depend on how fast the machine is: instructions, and memory at its peak."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

import pyarrow as pa

#: Of the numbers that `sys.monitoring` gives to tools, one that no usual tool has.
_TOOL = 4


def instructions(call: Callable[[], Any]) -> int:
    """Bytecode instructions that Python executes in a call; what compiled code does inside one of them counts once.

    A loop over rows costs some for each row, whether it calls anything or not.
    """
    collects = gc.isenabled()
    gc.disable()  # what it finalises is Python too, and it comes when it likes
    try:
        return _count(call)
    finally:
        if collects:
            gc.enable()


if sys.version_info >= (3, 12):  # where traces see no instruction of code that runs already when they begin

    def _count(call: Callable[[], Any]) -> int:
        count, here = 0, get_ident()

        def instruction(code: CodeType, offset: int) -> None:
            nonlocal count
            count += get_ident() == here  # other threads are monitored too

        monitoring, event = sys.monitoring, sys.monitoring.events.INSTRUCTION
        monitoring.use_tool_id(_TOOL, "counts")
        monitoring.register_callback(_TOOL, event, instruction)
        monitoring.set_events(_TOOL, event)
        try:
            call()
        finally:
            monitoring.set_events(_TOOL, monitoring.events.NO_EVENTS)
            monitoring.free_tool_id(_TOOL)
        return count

else:

    def _count(call: Callable[[], Any]) -> int:
        count = 0

        def trace(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal count
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            count += event == "opcode"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
        return count


@dataclass(frozen=True)
class Memory:
    """What a call takes and leaves.

    Attributes:
        python_bytes: the most that Python and NumPy held at once, beyond what was there before.
        arrow_bytes: the most that Arrow held, likewise.
        blocks: of Python's memory that the result keeps.
    """

    python_bytes: int
    arrow_bytes: int
    blocks: int


def memory(call: Callable[[], Any]) -> Memory:
    """The memory of a call, whose result is dropped."""
    pool, usual = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    gc.collect()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = call()
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        blocks = sum(each.count for each in tracemalloc.take_snapshot().statistics("filename"))
        del result
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
    return Memory(peak - before, int(pool.max_memory() or 0), blocks)
