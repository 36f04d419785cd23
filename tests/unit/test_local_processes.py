"""Processes that are started apart, known again, and ended: never another's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from runners.local.processes import Command, Process, start

SLEEP = "import time; time.sleep(60)"
#: Starts a child, says its number, and waits.
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
print(child.pid, flush=True)
time.sleep(60)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def run(directory: Path, code: str) -> tuple[Process, Path]:
    """A process of Python code, and its log."""
    log = directory / "log"
    return start(Command((sys.executable, "-c", code), directory), log), log


def first_line(log: Path) -> str:
    """What a process said first, once it has."""
    deadline = time.monotonic() + 30.0
    while "\n" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return log.read_text().splitlines()[0]


def test_a_process_is_asked_to_end_and_is_gone_then(tmp_path: Path) -> None:
    """When stop returns the process has ended, of the signal it was sent."""
    process, _ = run(tmp_path, SLEEP)
    assert process.is_alive()
    assert process.stop(signal.SIGTERM)
    assert not process.is_alive()


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    """Patience ends, and stop says that it had to kill."""
    process, log = run(tmp_path, DEAF)
    assert first_line(log) == "ready"
    assert not process.stop(signal.SIGTERM, patience=0.2)
    assert not process.is_alive()


def test_what_it_had_started_ends_with_it(tmp_path: Path) -> None:
    """A child of the process does not outlive a kill."""
    process, log = run(tmp_path, PARENT)
    child = int(first_line(log))
    process.kill()
    wait_until_gone(child)


def test_what_a_crashed_process_had_started_can_be_ended(tmp_path: Path) -> None:
    """Its children are found when it is long dead itself."""
    process, log = run(tmp_path, PARENT)
    child = int(first_line(log))
    os.kill(process.pid, signal.SIGKILL)
    while process.is_alive():
        time.sleep(0.01)
    assert is_there(child)
    process.kill()
    wait_until_gone(child)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10.0
    while is_there(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that is over, and nobody has asked for, does not."""
    result = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return bool(result.stdout.strip()) and not result.stdout.startswith("Z")


def test_a_number_that_another_process_has_by_now_is_left_alone(tmp_path: Path) -> None:
    """A process that was started at another time than the one we know is not ours, whatever its number."""
    process, _ = run(tmp_path, SLEEP)
    recycled = Process(process.pid, "another time")
    assert not recycled.is_alive()
    recycled.kill()
    recycled.stop(signal.SIGKILL)
    time.sleep(0.2)  # a signal takes a moment to be felt
    assert process.is_alive()
    process.kill()


def test_a_process_goes_on_when_its_starter_has_ended(tmp_path: Path) -> None:
    """It has a session of its own and is known again by number and time."""
    code = (
        "import sys; from pathlib import Path; from runners.local.processes import Command, start\n"
        f"process = start(Command((sys.executable, '-c', {SLEEP!r}), Path('.')), Path('log'))\n"
        "print(process.pid, process.started)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    pid, _, started = said.strip().partition(" ")
    process = Process(int(pid), started)
    assert process.is_alive()
    assert os.getsid(process.pid) == process.pid
    process.kill()
    assert not process.is_alive()
