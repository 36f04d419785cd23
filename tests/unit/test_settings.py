"""The settings: what is taken, what goes before what, and how a mistake is told."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.setting_values import mask_secrets
from pipelines.settings import FLAGS, Settings, load_settings, settings_and_origins, settings_as_toml
from transforms.errors import UserError
from transforms.rules import Rule

SECTIONS = {name: kind for name, kind in get_type_hints(Settings).items() if name != "rules"}
NAMES = [f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.__struct_fields__]


def value_of(settings: Settings, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def write(directory: Path, text: str) -> Path:
    path = directory / "fraud.toml"
    path.write_text(text, "utf-8")
    return path


def error_of(*sets: str, config: Path | None = None, flags: dict[str, object] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_settings(config, sets, flags)
    return str(caught.value)


def test_nothing_given_is_the_default_run() -> None:
    """Without file and flags the settings are the declared defaults, and none claims to have been given."""
    assert settings_and_origins() == (Settings(), {})


@pytest.mark.parametrize(
    ("layers", "source", "origin"),
    [
        (("file", "set", "flag"), "flag.csv", "--source"),
        (("file", "set"), "set.csv", "--set"),
        (("file", "flag"), "flag.csv", "--source"),
        (("set", "flag"), "flag.csv", "--source"),
        (("file",), "file.csv", "fraud.toml"),
        (("set",), "set.csv", "--set"),
    ],
)
def test_a_flag_goes_before_set_before_file(tmp_path: Path, layers: tuple[str, ...], source: str, origin: str) -> None:
    """Of the places a setting is given the strongest wins, and is named as its origin."""
    config = write(tmp_path, '[input]\nsource = "file.csv"\n[pipeline]\nshards = 3\n') if "file" in layers else None
    sets = ["input.source=set.csv"] if "set" in layers else []
    settings, origins = settings_and_origins(config, sets, {"source": "flag.csv" if "flag" in layers else None})
    assert settings.input.source == source
    assert origins["input.source"].endswith(origin)
    assert settings.pipeline.shards == (3 if config else 2)  # what the file alone says is kept


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_sets_its_setting(flag: str) -> None:
    """Each flag reaches the setting it is short for, and errors name the flag."""
    section, key = FLAGS[flag].split(".")
    given: object = ["a.csv", "b.csv"] if isinstance(getattr(getattr(Settings(), section), key), tuple) else "off"
    settings, origins = settings_and_origins(flags={flag: given})
    assert value_of(settings, FLAGS[flag]) == (tuple(given) if isinstance(given, list) else given)
    assert origins == {FLAGS[flag]: f"--{flag}"}
    assert error_of(flags={flag: 5}).startswith(f"--{flag}: {FLAGS[flag]} must be ")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("pipeline.shards=16", "pipeline.shards", 16),
        ("pipeline.deduplicate=false", "pipeline.deduplicate", False),
        ("pipeline.ordering=arrival", "pipeline.ordering", "arrival"),
        ('pipeline.ordering="arrival"', "pipeline.ordering", "arrival"),
        ("policy.review=1", "policy.review", 1.0),
        ("labels.delay=0", "labels.delay", "0"),
        (" labels.delay = 3d ", "labels.delay", "3d"),
        ("output.directory=2026", "output.directory", "2026"),
        ("output.directory=2026-01-01", "output.directory", "2026-01-01"),
        ("output.directory=true # not a comment", "output.directory", "true # not a comment"),
        ("output.directory='a\\b'", "output.directory", "a\\b"),
        ("input.source=simulator:?days=3&seed=7", "input.source", "simulator:?days=3&seed=7"),
        ('output.sinks=["a", "b"]', "output.sinks", ("a", "b")),
        ("output.sinks=[]", "output.sinks", ()),
    ],
)
def test_values_of_set_are_toml_and_text_needs_no_quotes(text: str, name: str, value: object) -> None:
    """`--set` takes TOML values; for a setting that is text, what stands there is the text."""
    found = value_of(load_settings(sets=[text]), name)
    assert (found, type(found)) == (value, type(value))


def test_rules_can_be_set_in_one_line() -> None:
    """`--set rules=[...]` takes rules as inline tables."""
    sets = ["rules=[{name = 'large', when = 'amount > 2000', action = 'review'}]"]
    assert load_settings(sets=sets).rules == (Rule(name="large", when="amount > 2000", action="review"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[inptu]\nsource = 'a'", "[inptu] is not a section; did you mean input?"),
        ("[zzz]\n", "[zzz] is not a section; there are input, output"),
        ("[input]\nsorce = 'a'", "input.sorce is not a setting; did you mean source?"),
        ("[input]\nzzz = 'a'", "input.zzz is not a setting; [input] has source, schema, labels"),
        ("[input]\nshards = 3", "input.shards is not a setting; did you mean pipeline.shards?"),
        ("shards = 3", "shards is not a setting; did you mean pipeline.shards?"),
        ("allowed_lateness = '1h'", "did you mean pipeline.allowed_lateness or summary.allowed_lateness?"),
        ("input = 'a'", "input is a section; write [input]"),
        ("[[input]]\nsource = 'a'", "input is a section; write [input]"),
        ("[input]\nsource.url = 'a'", 'input.source must be text, and not empty; found {"url": "a"}'),
        ("[pipeline]\nshards = '8'", 'pipeline.shards must be a whole number from 1 to 1024; found "8"'),
        ("[pipeline]\nshards = true", "pipeline.shards must be a whole number from 1 to 1024; found true"),
        ("[pipeline]\nshards = 1025", "pipeline.shards must be a whole number from 1 to 1024; found 1025"),
        ("[pipeline]\nshards = 0", "pipeline.shards must be a whole number from 1 to 1024; found 0"),
        ("[pipeline]\nordering = 'arival'", 'found "arival"; did you mean arrival?'),
        ("[pipeline]\ndeduplicate = 1", "pipeline.deduplicate must be true or false; found 1"),
        ("[pipeline]\ndeduplicate_window = '0'", 'more than 0 and at most 100 years; found "0"'),
        ("[labels]\ndelay = 7", "labels.delay must be a duration such as 90s, 1h or 30d"),
        ("[labels]\ndelay = '7 days'", 'found "7 days"'),
        ("[labels]\ndelay = '99999999999999d'", "at most 100 years"),
        ("[labels]\ndelay = 2026-01-01", "found 2026-01-01"),
        ("[policy]\nreview = 0", "policy.review must be a number above 0 and at most 1; found 0"),
        ("[policy]\nreview = 1.01", "policy.review must be a number above 0 and at most 1; found 1.01"),
        ("[policy]\nreview = nan", "policy.review must be a number above 0"),
        ("[policy]\nreview_cost_minor = -1", "policy.review_cost_minor must be a whole number from 0"),
        ("[policy]\nreview_cost_minor = 5.5", "found 5.5"),
        ("[policy]\nreview = 0.9\ndecline = 0.5", "policy.review (0.9, "),
        ("[output]\nsinks = 'a'", 'output.sinks must be a list of text, such as ["a", "b"]; found "a"'),
        ("[output]\nsinks = ['']", "output.sinks must be a list of text"),
        ("[input]\nsource = ''", "input.source must be text, and not empty"),
        ("[summary]\nwindow = '1m'\nevery = '2m'", "summary.every (2m, "),
        ("rules = 3", "write [[rules]]"),
        ("[rules]\nname = 'a'", "write [[rules]]"),
        ("[[rules]]\nname = 'a'\nwhen = 'b > 1'", "rules[1] has no action"),
        (
            "[[rules]]\nname = 'a'\nwhen = 'b > 1'\nacton = 'review'",
            "rules[1].acton is not a setting; did you mean action?",
        ),
        ("[[rules]]\nname = 'a'\nwhen = 'b > 1'\naction = 'approve'", "rules[1].action must be one of decline, review"),
        (
            "[[rules]]\nname = ''\nwhen = 'b > 1'\naction = 'review'",
            "rules[1].name must be text of 1 to 100 characters",
        ),
        ("[[rules]]\nname = 'a'\nwhen = 'b >'\naction = 'review'", "rule 'a', column 4: the condition ends too early"),
        ("[[rules]]\nname = 'a'\nwhen = 'b > 1'\naction = 'review'\n" * 2, "rule 'a' is there more than once"),
        ("[input\nsource = 'a'", "is not a TOML file"),
        ("[input]\nsource = 'a'\nsource = 'b'", "is not a TOML file"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_the_file(tmp_path: Path, text: str, says: str) -> None:
    """The message names the file, the setting, what was found and what was expected."""
    config = write(tmp_path, text)
    message = error_of(config=config)
    assert str(config) in message
    assert says in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pipeline.shards=0", "--set: pipeline.shards must be a whole number from 1 to 1024; found 0"),
        ("pipeline.shard=8", "--set: pipeline.shard is not a setting; did you mean shards?"),
        ("pipelines.shards=8", "--set: pipelines.shards is not a setting; did you mean pipeline.shards?"),
        ("shards=8", "--set: shards is not a setting; did you mean pipeline.shards?"),
        ("pipeline=8", "--set: pipeline is a section; name one of its settings: ordering, shards"),
        ("pipeline.shards", "--set pipeline.shards: write --set section.key=value"),
        ("pipeline.shards=8\nx=1", "--set: pipeline.shards must be a whole number"),
        ('output.sinks=["a"', '--set output.sinks: ["a" is not a TOML value'),
        ("=3", "--set =3: write --set section.key=value"),
        ("rules=a", "--set: rules are tables"),
    ],
)
def test_a_mistake_in_set_is_told_with_set(text: str, says: str) -> None:
    """The message names --set, the setting, what was found and what was expected."""
    assert says in error_of(text)


def test_a_setting_set_twice_is_refused() -> None:
    """Of two --set of one setting neither is dropped in silence."""
    assert error_of("pipeline.shards=1", "pipeline.shards=2") == "--set pipeline.shards is given twice"


def test_what_a_flag_overrides_must_be_right_too(tmp_path: Path) -> None:
    """A mistake in the file is told even where a flag would have the last word."""
    assert "input.schema" in error_of(config=write(tmp_path, "[input]\nschema = 5"), flags={"schema": "handbook"})


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    """A missing file and one that is not text are refused by name."""
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_bytes(content)
    assert str(path) in error_of(config=path)
    assert str(tmp_path) in error_of(config=tmp_path)  # a directory


SECRET = "hunter2"  # noqa: S105  # what the tests look for
WITH_SECRETS = [
    f"postgresql://fraud:{SECRET}@db:5432/cards",
    f"postgresql://fraud:p@ss{SECRET}@db/cards",
    f"postgresql://fraud:a/{SECRET}@db/cards",
    f"postgresql://:{SECRET}@db",
    f"kafka:fraud:{SECRET}@broker:9092/topic",
    f"kafka:broker:9092/topic?sasl_password={SECRET}",
    f"s3:bucket/key?region=x&aws_secret_access_key={SECRET}",
    f"kafka:broker:9092/topic?access_TOKEN={SECRET}&x=1",
]


@pytest.mark.parametrize("url", WITH_SECRETS)
@pytest.mark.parametrize("name", ["input.source", "output.sinks", "model.uri", "output.dead_letters"])
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str, name: str) -> None:
    """A password in a URL is refused wherever it is given, and the message does not hold it."""
    message = error_of(f'{name}=["{url}"]' if name == "output.sinks" else f"{name}={url}")
    assert f"{name} holds a password" in message
    assert SECRET not in message


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_no_message_repeats_a_secret(url: str) -> None:
    """Whatever else is wrong with what was given, a password in it is masked."""
    for text in (url, f"pipeline.shards={url}", f'output.sinks=["{url}', f"labels.delay={url}", f"x.y={url}"):
        assert SECRET not in error_of(text)


@pytest.mark.parametrize(
    "url",
    [
        *("kafka:b1:9092,b2:9092/topic", "kafka://b1:9092,b2:9092/topic?group=a@b", "postgresql://fraud@db:5432/cards"),
        *("file:/data/a:b@c.csv", "/data/me@home/a.csv", "sns:arn:aws:sns:eu-west-1:123456789012:alerts"),
        *("redshift:cluster/db?secret_arn=arn:aws:secretsmanager:eu-west-1:1:secret:x", "simulator:?days=3&seed=7"),
    ],
)
def test_a_url_without_a_secret_is_taken_as_it_is(url: str) -> None:
    """Ports, user names, mail addresses and names of secrets are no secrets."""
    assert mask_secrets(url) == url
    assert load_settings(flags={"source": url}).input.source == url


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: mask_secrets(text) == text)
durations = st.integers(1, 1000).flatmap(
    lambda count: st.sampled_from([f"{count}{unit}" for unit in ("s", "m", "h", "d")])
)
some_values = st.fixed_dictionaries(
    {},
    optional={
        "input.source": text,
        "input.labels": text,
        "output.directory": text,
        "output.sinks": st.lists(text, max_size=3),
        "model.uri": text,
        "pipeline.ordering": st.sampled_from(["auto", "event_time", "arrival"]),
        "pipeline.shards": st.integers(1, 1024),
        "pipeline.deduplicate": st.booleans(),
        "pipeline.allowed_lateness": durations,
        "policy.review": st.floats(0, 1, exclude_min=True),
        "policy.decline_cost_minor": st.integers(0, 10**12),
        "summary.every": durations,
        "rules": st.lists(
            st.fixed_dictionaries(
                {
                    "name": text.filter(lambda name: len(name) <= 100),
                    "when": st.sampled_from(['a in ("x", "é")', "a > 1 # b\n and c"]),
                    "action": st.sampled_from(["review", "decline"]),
                }
            ),
            max_size=3,
            unique_by=lambda rule: rule["name"],
        ),
    },
)


@given(some_values)
def test_settings_written_as_toml_are_the_same_settings(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    """What --print_config writes is a config file that gives the very same settings."""
    tree: dict[str, Any] = {"rules": values.pop("rules", [])}
    for name, value in values.items():
        section, key = name.split(".")
        tree.setdefault(section, {})[key] = value
    settings = msgspec.convert(tree, Settings)
    path = tmp_path_factory.mktemp("config") / "fraud.toml"
    path.write_text(settings_as_toml(settings, {name: "a\nplace" for name in values}), "utf-8", newline="")
    assert load_settings(path) == settings


@pytest.mark.parametrize("name", NAMES)
def test_the_written_file_says_every_setting_and_its_meaning(name: str) -> None:
    """Each setting is in its section, with its default or as not set, below a line that says what it means."""
    section, key = name.split(".")
    text, default = settings_as_toml(Settings()), value_of(Settings(), name)
    lines = text.split(f"[{section}]\n")[1].split("\n\n")[0].splitlines()
    [at] = [at for at, line in enumerate(lines) if line.startswith((f"{key} = ", f"# {key} is not set"))]
    assert len(lines[at - 1].removeprefix("# ")) > 10
    said = tomllib.loads(text)[section].get(key)
    assert (tuple(said) if isinstance(said, list) else said) == default


def test_the_written_file_names_where_a_value_came_from(tmp_path: Path) -> None:
    """A setting that was given stands beside the flag or file that gave it; a default stands alone."""
    config = write(tmp_path, "[labels]\ndelay = '3d'\n[[rules]]\nname = 'a'\nwhen = 'b > 1'\naction = 'review'\n")
    lines = settings_as_toml(*settings_and_origins(config, ["pipeline.shards=4"], {"source": "a.csv"})).splitlines()
    assert 'source = "a.csv"  # --source' in lines
    assert "shards = 4  # --set" in lines
    assert f'delay = "3d"  # {config}' in lines
    assert f"[[rules]]  # {config}" in lines
    assert 'schema = "handbook"' in lines


@pytest.mark.parametrize("kind", [Settings, *SECTIONS.values()])
def test_settings_cannot_be_changed_and_know_their_fields(kind: type[msgspec.Struct]) -> None:
    """Settings are frozen, and made from data they refuse a field they do not have."""
    with pytest.raises(AttributeError):
        setattr(kind(), kind.__struct_fields__[0], None)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"zzz": 1}, kind)
