"""The command line: its own flags, Beam's flags as they are, and everything else refused."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, StandardOptions
from hypothesis import given
from hypothesis import strategies as st

from pipelines.options import CommandLine, _beam_parser, _own_parser, parse_command_line
from pipelines.settings import FLAGS, Settings
from transforms.errors import UserError

OWN = {
    *(f"--{flag}" for flag in FLAGS),
    "--runner",
    "--config",
    "--set",
    "--print_config",
    "--explain_runner",
    "--help",
}


def error_of(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_command_line(argv)
    return str(caught.value)


def test_nothing_given_is_the_default_run() -> None:
    """Without a flag the run is the default one on the DirectRunner."""
    assert parse_command_line([]) == CommandLine(Settings(), {}, "DirectRunner", [], False, False)


def test_own_flags_reach_their_settings(tmp_path: Path) -> None:
    """Every own flag does what --help says of it."""
    config = tmp_path / "fraud.toml"
    config.write_text("[pipeline]\nshards = 3\n", "utf-8")
    line = parse_command_line(
        shlex.split(
            f"--source a.csv --schema creditcard --labels=l.csv --output out --sink s1 --sink=s2 --alert a1 --alert a2 "
            f"--dead_letters d --model m --quiet --config {config} --set labels.delay=3d --set progress.every=5s "
            "--print_config --runner=FlinkRunner"
        )
    )
    settings = line.settings
    assert (settings.input.source, settings.input.schema, settings.input.labels) == ("a.csv", "creditcard", "l.csv")
    assert (settings.output.directory, settings.output.dead_letters) == ("out", "d")
    assert (settings.output.sinks, settings.output.alerts) == (("s1", "s2"), ("a1", "a2"))
    assert (settings.model.uri, settings.progress.mode, settings.progress.every) == ("m", "off", "5s")
    assert (settings.pipeline.shards, settings.labels.delay) == (3, "3d")
    assert (line.runner, line.beam_args, line.print_config) == ("FlinkRunner", [], True)
    assert line.origins["output.sinks"] == "--sink"
    assert line.origins["pipeline.shards"] == str(config)


def _sample(action: argparse.Action) -> str | None:
    """A value that a flag of Beam takes; None for a flag without one."""
    if action.nargs == 0:
        return None
    if action.choices:
        return str(next(iter(action.choices)))
    if "--gcs_custom_audit_entries" in action.option_strings:
        return "{}"  # taken apart by Beam as JSON, which its type does not say
    return {"int": "7", "float": "0.5", "loads": "{}", "<lambda>": "{}", "_switch": "true"}.get(
        getattr(action.type, "__name__", ""), "word"
    )


BEAM_FLAGS = {
    option: _sample(action)
    for option, action in _beam_parser()._option_string_actions.items()
    if option not in OWN and option != "--label"
}


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """A command line of own and Beam's flags, and what of it is Beam's."""
    argv, beam = [], []
    for option in draw(st.lists(st.sampled_from(sorted(BEAM_FLAGS)), unique=True, max_size=8)):
        own = draw(st.sampled_from([[], ["--sink", "a.csv"], ["--alert=b", "--sink=-x"]]))
        value = BEAM_FLAGS[option]
        words = [option] if value is None else draw(st.sampled_from([[option, value], [f"{option}={value}"]]))
        argv += own + words
        beam += words
    return argv, beam


@given(command_lines())
def test_flags_of_beam_pass_untouched(lines: tuple[list[str], list[str]]) -> None:
    """Any flags of Beam, in either form and wherever they stand, come out as they were and in order."""
    argv, beam = lines
    assert parse_command_line(argv).beam_args == beam


def test_every_flag_of_beam_passes() -> None:
    """Each flag of every runner that Beam knows is taken, all of them at once."""
    assert len(BEAM_FLAGS) > 150
    assert {"--streaming", "--parallelism", "--environment_config", "--s3_region_name"} <= set(BEAM_FLAGS)
    argv = [word for option, value in BEAM_FLAGS.items() for word in (option, value) if word is not None]
    assert parse_command_line(argv).beam_args == argv


def test_what_is_passed_on_is_what_beam_reads() -> None:
    """PipelineOptions made of the passed flags has their values."""
    args = parse_command_line(
        ["--parallelism", "4", "--source=a", "--streaming", "--experiments=x", "--experiments", "y", "--alert", "b"]
    ).beam_args
    options = PipelineOptions(args)
    assert options.view_as(FlinkRunnerOptions).parallelism == 4
    assert options.view_as(StandardOptions).streaming
    assert options.get_all_options()["experiments"] == ["x", "y"]


def test_flags_that_beam_has_too() -> None:
    """Only --runner and --labels are flags of both; a new collision must be seen before users lose a flag of Beam."""
    assert set(_own_parser()._option_string_actions) - {"-h"} == OWN
    assert OWN & set(_beam_parser()._option_string_actions) == {"--runner", "--labels"}


def test_a_users_own_pipeline_options_are_flags_too() -> None:
    """A flag of a PipelineOptions class that a user has defined passes like Beam's own."""

    class MyOptions(PipelineOptions):
        @classmethod
        def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--my_own_flag_for_this_test", type=int)
            parser.add_value_provider_argument("--my_later_flag_for_this_test")  # type: ignore[attr-defined]  # Beam's

    assert MyOptions([]).my_own_flag_for_this_test is None
    argv = ["--my_own_flag_for_this_test=3", "--my_later_flag_for_this_test", "x"]
    assert parse_command_line(argv).beam_args == argv


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("--sorce a", "--sorce is a flag of neither this program nor Beam; did you mean --source?"),
        ("--sorce=a", "--sorce is a flag of neither this program nor Beam; did you mean --source?"),
        ("-source a", "did you mean --source?"),
        ("--dead-letters a", "did you mean --dead_letters?"),
        ("--paralelism=4", "did you mean --parallelism?"),
        ("--sour a", "--sour is a flag of neither this program nor Beam; did you mean --source?"),
        ("--stream", "--stream is a flag of neither this program nor Beam; did you mean --streaming?"),
        ("--qqqq", "--qqqq is a flag of neither this program nor Beam; see --help"),
        ("a.csv", "'a.csv' belongs to no flag"),
        ("--sink a b", "'b' belongs to no flag; a flag takes one value, so write --sink A --sink B"),
        ("--streaming true", "'true' belongs to no flag"),
        ("--streaming -- --parallelism 4", "-- is not a flag"),
        ("--source", "--source: expected one argument"),
        ("--source --sink a", "--source: expected one argument"),
        ("--source a --source b", "--source: is given twice"),
        ("--output a --output=a", "--output: is given twice"),
        ("--config a --config b", "--config: is given twice"),
        ("--runner DirectRunner --runner FlinkRunner", "--runner: is given twice"),
        ("--quiet=yes", "--quiet: ignored explicit argument"),
        ("--experiments", "expected one argument"),
        ("--parallelism=four", "--parallelism: invalid int value: 'four'"),
        ("--gcs_custom_audit_entries=word", "Beam cannot read the value of a flag among --gcs_custom_audit_entries"),
        ("--direct_test_splits=word", "--direct_test_splits: not JSON: 'word'"),
        ("--sdk_harness_log_level_overrides 5", "Beam cannot read the value of a flag among --sdk_harness_log_level"),
        ("--label a.csv", "labels of transactions are --labels URL"),
        ("--source=", "--source: input.source must be text, and not empty"),
        ("--set pipeline.shards=0", "--set: pipeline.shards must be a whole number from 1 to 1024; found 0"),
        ("--config /nowhere/fraud.toml", "--config /nowhere/fraud.toml cannot be read: No such file or directory"),
        ("--runner=DirectRuner", "--runner: 'DirectRuner' is not a runner; did you mean DirectRunner?"),
        ("--runner=Spork", "--runner: 'Spork' is not a runner; there are "),
        ("--runner=no.such.Runner", "--runner: there is no class no.such.Runner"),
        ("--runner=apache_beam.runners.NoRunner", "--runner: there is no class apache_beam.runners.NoRunner"),
        ("--runner=.x", "--runner: there is no class .x"),
        ("--source a\udcff", "not valid UTF-8"),
    ],
)
def test_a_mistake_is_one_clear_line(argv: str, says: str) -> None:
    """What is misspelt, left over, doubled or wrong is refused with what was found and what to do."""
    message = error_of(*argv.split(" "))
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "argv",
    [
        "--sorce={}",
        "{}",
        "--sink a {}",
        "--source={}",
        "--quiet={}",
        "--parallelism={}",
        "--runner={}",
        "--runner=a.{}",
    ],
)
def test_no_message_repeats_a_password(argv: str) -> None:
    """Wherever a URL with a password is put by mistake, the message does not hold the password."""
    assert "hunter2" not in error_of(*argv.format("postgresql://fraud:hunter2@db:5432/cards").split(" "))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("DirectRunner", "DirectRunner"),
        ("direct", "DirectRunner"),
        ("FLINK", "FlinkRunner"),
        ("prismrunner", "PrismRunner"),
        ("apache_beam.runners.direct.direct_runner.DirectRunner",) * 2,
    ],
)
def test_runners_are_named_as_beam_names_them(given: str, meant: str) -> None:
    """Every spelling of a runner that Beam takes comes out as one name."""
    assert parse_command_line(["--runner", given]).runner == meant


def test_labels_of_a_dataflow_job_are_beams(tmp_path: Path) -> None:
    """--labels is the stream of labels; on Dataflow, --label is Beam's."""
    line = parse_command_line(["--runner=DataflowRunner", "--label=team=fraud", "--labels=l.csv"])
    assert (line.settings.input.labels, line.beam_args) == ("l.csv", ["--label=team=fraud"])


def _help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as caught:
        parse_command_line(["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_help_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    """No line of --help is wider than the terminal, and a wide one is made use of."""
    lines = _help(monkeypatch, capsys, columns).splitlines()
    assert columns - 25 < max(map(len, lines)) <= columns


def test_help_explains_every_own_flag(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each own flag has a line of its own in --help."""
    text = _help(monkeypatch, capsys, 80)
    for flag in OWN:
        assert re.search(rf"^  (-h, )?{flag} ", text, re.MULTILINE), flag


def test_the_commands_in_help_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each command that --help shows is one that the command line takes, even on a narrow terminal."""
    text = _help(monkeypatch, capsys, 40)
    monkeypatch.chdir(tmp_path)
    Path("fraud.toml").write_text("", "utf-8")
    commands = re.findall(r"^  python -m pipelines\.fraud\b([^>\n]*)", text, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        assert isinstance(parse_command_line(shlex.split(command)), CommandLine)


@pytest.mark.parametrize("argv", [["--help"], ["--print_config", "--source=a.csv"], ["--set", "shards=1"]])
def test_beam_is_not_waited_for_without_need(argv: list[str]) -> None:
    """--help, --print_config and a mistake in a setting answer without importing Beam, which takes seconds."""
    program = (
        "import sys\nfrom pipelines.options import parse_command_line\n"
        "try:\n    parse_command_line(sys.argv[1:])\nexcept (SystemExit, ValueError):\n    pass\n"
        "sys.exit(any(name.split('.')[0] in ('apache_beam', 'pyarrow', 'numpy') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
