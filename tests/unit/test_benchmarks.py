"""The benchmarks on small input: what they measure is what they say, and their page can be published."""

from __future__ import annotations

import doctest
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import numpy as np
import pytest

from benchmarks import __main__ as everything
from benchmarks import feature_state, first_decision, main_job, report, scaling, scaling_flink, timed, traffic
from benchmarks.feature_state import Course, FeatureState, Point, follow
from benchmarks.hot_path import STEPS, HotPath, linear_model, records, tree_model
from benchmarks.main_job import JobRun
from benchmarks.subjects import HOT_TERMINAL, Held, default_histories, default_stages, extremes_subjects
from benchmarks.timed import run_timed
from benchmarks.traffic import Traffic
from io_connectors.simulation import Simulation
from transforms.durations import DAY, HOUR
from transforms.errors import UserError
from transforms.shard_log import LOG_SLACK

SMALL = Traffic(customers=5, terminals=10, per_day=200)
ROWS, LOOK = 24_000, 4_000  # 120 days: three times the longest window
LIVE = {"customer": 30 * DAY + HOUR, "terminal": 37 * DAY + HOUR, "duplicates": 30 * DAY}
#: Packed: ids and entities as they are, a time in four bytes, an amount in two, a label in one.
LOG_ROW_BYTES = {"customer stage": 23, "terminal stage": 21, "duplicates stage": 12}


@pytest.fixture(scope="module")
def found() -> FeatureState:
    return FeatureState(
        histories=follow(default_histories(), SMALL, ROWS, LOOK),
        stages=follow(default_stages(), SMALL, ROWS, LOOK),
        extremes=follow(extremes_subjects(), HOT_TERMINAL, 10_000, 5_000),
        scaled={factor: feature_state.scaled(factor) for factor in (1, 2)},
    )


@pytest.fixture(scope="module")
def runs() -> list[JobRun]:
    start = datetime(2018, 4, 1, tzinfo=UTC)
    return main_job.measure(None, 1, Simulation(customers=100, terminals=200, days=7, start=start))


@pytest.mark.parametrize("module", [report, scaling, timed, traffic])
def test_examples_hold(module: ModuleType) -> None:
    """Each example in a docstring gives what it says."""
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed


def test_a_command_is_measured_apart_from_who_asks() -> None:
    """Memory, CPU and wall time are the command's own, its children included, whatever this process holds."""
    held = np.ones(50_000_000)  # 400 MB
    idle = run_timed([sys.executable, "-c", "import time; time.sleep(0.5)"])
    busy = "import time\nb = bytearray(150_000_000)\nwhile time.process_time() < 0.5: pass"
    nested = run_timed(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"]
    )
    assert held.nbytes > 3 * idle.peak_bytes
    assert idle.wall_seconds > 0.5 > idle.cpu_seconds
    assert 150e6 < nested.peak_bytes < 300e6
    assert 0.5 < nested.cpu_seconds < 10


def test_the_main_job_is_measured_to_its_end(runs: list[JobRun]) -> None:
    """The simulator's 943 transactions of that week are decided on, and the figures fit each other."""
    (run,) = runs
    assert run.transactions == 943
    assert 0 < run.pipeline_seconds < run.wall_seconds
    assert run.cpu_seconds > 0.5
    assert 100e6 < run.peak_bytes < 3e9
    assert run.per_second == pytest.approx(943 / run.wall_seconds)


def test_a_job_that_fails_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that ends with an error, and no runs at all, end with one line and exit code 2."""
    monkeypatch.setattr(main_job, "JOB", "pipelines.absent")
    assert main_job.main(["--data", "unread.parquet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the main job ended with exit code 1: ")
    assert said.endswith("No module named pipelines.absent\n")
    assert main_job.main(["--runs", "0"]) == 2
    assert capsys.readouterr().err == "error: --runs must be at least 1, found 0\n"


def test_traffic_has_a_fixed_rate() -> None:
    """However it is cut, the same seed gives the same transactions at the same distances."""
    whole = next(SMALL.batches(300, 300))
    ids = [id for batch in SMALL.batches(300, 77) for id in batch.rows.column("transaction_id").to_pylist()]
    assert ids == whole.rows.column("transaction_id").to_pylist() == [str(number) for number in range(300)]
    assert set(np.diff(whole.numpy("event_time")).tolist()) == {DAY // 200}
    assert set(whole.rows.column("customer_id").to_pylist()) == set("01234")
    assert next(SMALL.scaled(3).batches(600, 600)).numpy("event_time")[-1] < whole.numpy("event_time")[-1]


#: Histories go by each entity's newest row, not by the newest of all: a few rows more are live.
BY_ENTITY = 0.005


def test_live_transactions_are_those_in_open_windows(found: FeatureState) -> None:
    """At each look, what counts as live is what arrived within the longest window and the lateness."""
    for course in (*found.histories, *found.stages):
        window = LIVE[course.subject.split()[0]]
        for point in course.points:
            ages = (point.rows - 1 - np.arange(point.rows)) * (DAY // 200)
            assert point.held.live == pytest.approx(np.count_nonzero(ages < window), rel=BY_ENTITY), course.subject


def test_logs_hold_the_live_rows_and_some_more(found: FeatureState) -> None:
    """A rewritten log has a few numbers for each live row, and none outgrows twice that and the slack."""
    for course in found.stages:
        each = LOG_ROW_BYTES[course.subject]
        held = course.points[-1].held
        assert held.rewritten_bytes == pytest.approx(each * held.live + 4, rel=BY_ENTITY)
        most = each * (2 * held.live + LOG_SLACK + 2 * 2_048)
        assert all(point.held.log_bytes < most for point in course.points)
        assert held.log_bytes >= held.rewritten_bytes
        assert all(each < 1_000 for each in course.memory_each)


def test_state_follows_the_open_windows(found: FeatureState) -> None:
    """Twice the people have twice the live transactions, the same at every look of the second half."""
    for once, twice in zip(found.scaled[1], found.scaled[2], strict=True):
        assert len(once.settled) == len(twice.settled) == 6
        assert twice.live == pytest.approx(2 * once.live, rel=BY_ENTITY)
        assert [point.held.live for point in once.settled] == pytest.approx([once.live] * 6, rel=BY_ENTITY)


def test_histories_alone_write_no_log(found: FeatureState) -> None:
    """Only stages have a state of Beam's; both hold bytes, and cost time."""
    for course in (*found.histories, *found.extremes[:1]):
        assert all(point.held.log_bytes == 0 and point.held.memory_bytes > 0 for point in course.points)
        assert all(point.microseconds > 0 for point in course.points)


def test_a_stage_that_loses_rows_is_no_measurement() -> None:
    """Rows that a stage does not pass on, here duplicates, stop the benchmark."""
    batch = next(SMALL.batches(100, 100))
    duplicates = default_stages()[-1]
    duplicates.take(batch)
    with pytest.raises(RuntimeError, match="100 transactions went in, 0 came out"):
        duplicates.take(batch)


def test_a_cost_is_that_of_the_second_half() -> None:
    """The first half fills the windows; a number of rows that was not reached has no cost."""
    points = [Point(rows, cost, Held(10, 20 * rows)) for rows, cost in ((1, 9.0), (2, 5.0), (3, 1.0), (4, 3.0))]
    course = Course("made up", tuple(points))
    assert (course.cost(2), course.cost(4), course.cost(5)) == (5.0, 2.0, None)
    assert course.memory_each == [6.0, 8.0]


def test_too_few_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer rows than fill the windows are a mistake of the user's."""
    assert feature_state.main(["--rows", "10"]) == 2
    assert capsys.readouterr().err == (
        "error: --rows must be at least 100,000: the first half only fills the windows; found 10\n"
    )


#: Points as the scaling benchmark has them, of made-up costs: 500 microseconds a piece and four a row.
SCALED = [
    scaling.Point(axis, value, 1_000, dict.fromkeys(STEPS, cost / 5), 10, 5, 480)
    for axis, value, cost in (
        *(("batch", size, 1_000 / size + 4) for size in scaling.BATCHES),
        *(("shards, batches of 1,000", shards, 0.5 * shards + 4) for shards in scaling.SHARDS),
    )
]


def test_costs_are_those_of_the_rows_measured() -> None:
    """The spans of one run are cut at batches, and what a hot path holds is counted at their ends."""
    run = scaling.Run(traffic=Traffic(customers=5, terminals=10, per_day=100), window_days=1, batch_rows=400)
    first, second = scaling.follow("rows", run, {800: (0, 800), 2_000: (1_000, 2_000)})
    assert (first.rows, second.rows) == (800, 800)  # from 1,200 on
    assert [second.live, second.entities] == pytest.approx([104, 5], rel=0.05)  # a day and an hour
    assert second.state_bytes == pytest.approx(48 * 2_000, rel=0.01)
    assert all(first.microseconds[step] > 0 and second.microseconds[step] > 0 for step in STEPS)


def test_models_flag_one_in_a_hundred() -> None:
    """A larger model does not decide otherwise: it only costs more."""
    (raw,) = records(Traffic(), 5_000, 5_000)
    decided = [
        [b"review" in each.body for each in HotPath(model).take(raw)] for model in (linear_model(), tree_model(3))
    ]
    assert decided[0] == decided[1]
    assert 0.005 < np.mean(decided[0]) < 0.02


def test_fractions_are_those_of_the_points() -> None:
    """Of made-up points with 0.1 microseconds a shard and 0.2 a transaction on the JobManager, these come out."""

    def point(subtasks: int, shards: int, rate: float) -> scaling_flink.Point:
        used = {"taskmanager-1": 20.0, "workers": 20.0 + shards / 10, "jobmanager": 0.2 + 1e4 / rate, "zookeeper": 0.0}
        idle = {**dict.fromkeys(used, 0.0), "jobmanager": 0.01}
        return scaling_flink.Point(4, subtasks, shards, rate, used, idle)

    points = [point(1, 1, 16_000.0), *(point(2, shards, 20_000.0) for shards in (2, 16, 64))]
    found = scaling_flink.fractions_of(points)
    assert [found.speed_up, found.serial] == pytest.approx([1.25, 0.6])
    assert [found.row, found.shard, found.one_place] == pytest.approx([40, 0.1, 0.2])
    assert found.efficiency(1) == 1.0
    assert found.efficiency(101) == pytest.approx(40.1 / 50.1)
    assert "| 4 partitions, 1 subtask, 1 shards | 16,000 |" in scaling_flink.results_text(points)


def no_server(*_: object) -> NoReturn:
    raise UserError("there is no server")


def test_the_page_says_all_and_betrays_nothing(
    found: FeatureState, runs: list[JobRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page has every subject, the versions and pictures that exist, and no path of the machine."""
    monkeypatch.setattr(main_job, "measure", lambda *_: runs)
    monkeypatch.setattr(feature_state, "measure", lambda *_, **__: found)
    monkeypatch.setattr(scaling, "measure", lambda *_: SCALED)
    for module, measure in everything.WITH_SERVERS.values():
        monkeypatch.setattr(module, measure, no_server)
    monkeypatch.setattr(everything, "HERE", tmp_path)
    assert everything.main(["--quick"]) == 0
    assert not list(tmp_path.iterdir()), "a quick look leaves the published page alone"
    assert everything.main([]) == 0
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    pictures = re.findall(r"\]\((plots/\w+\.png)\)", page)
    assert sorted(pictures) == sorted(f"plots/{path.name}" for path in (tmp_path / "plots").iterdir())
    assert all((tmp_path / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    for course in (*found.histories, *found.stages, *found.extremes):
        assert f"| {course.subject} |" in page
    assert "943 transactions of the simulator" in page
    assert page.count("Not measured: there is no server") == len(everything.WITH_SERVERS)
    assert all(f"| {name} | " in page for name in ("cores", "memory", "Python", *report.PACKAGES))
    for place in (tmp_path, Path.cwd(), Path.home(), Path(sys.prefix)):
        assert f"{place}/" not in page


def test_the_first_job_of_a_cluster_is_told_from_later_ones() -> None:
    """It is the one that loads classes."""
    text = first_decision.results_text(first_decision.Measured([4.94, 5.06], [12.0, 8.0, 7.5]))
    assert text.splitlines()[2:] == [
        "| DirectRunner | 4.9 / 5.1 |",
        "| Flink, the first job of a cluster | 12.0 |",
        "| Flink, later jobs | 8.0 / 7.5 |",
    ]
