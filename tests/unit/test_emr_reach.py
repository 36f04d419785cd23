"""What a cluster's nodes cannot reach is refused when the package is made."""

from __future__ import annotations

import pytest

from pipelines.settings import Settings, load_settings
from runners.emr.reach import check_reach
from transforms.errors import UserError

REMOTE = {
    "source": "kafka://broker-1:9092,broker-2:9092/transactions",
    "sink": ["dynamodb://decisions"],
    "alert": ["lambda://FraudAlertHandler"],
    "dead_letters": "sqs://dead-letters",
}
SUMMARIES = "output.summaries=s3://results/windows"


def settings(*sets: str, **flags: object) -> Settings:
    return load_settings(sets=[SUMMARIES, "output.drift=s3://results/drift", *sets], flags={**REMOTE, **flags})


def test_remote_places_pass() -> None:
    """Topics, tables, functions, queues and buckets are reached from any node."""
    check_reach(settings())
    check_reach(settings(labels="s3://bank/chargebacks/*.csv?endpoint=https://s3.example.com", model="handbook"))


@pytest.mark.parametrize("flag", ["sink", "alert", "dead_letters"])
def test_results_must_have_a_place(flag: str) -> None:
    """What would be a file by default is lost with its node, so the flag is asked for by its name."""
    with pytest.raises(UserError, match=f"^--{flag} is not given: .* lost with it"):
        check_reach(settings(**{flag: None if flag == "dead_letters" else []}))


def test_summaries_must_have_a_place() -> None:
    """They have no flag of their own, so the message says how to set them."""
    with pytest.raises(UserError, match=r"^--set output\.summaries=URL \(or summary\.enabled=false\) is not given"):
        check_reach(load_settings(flags=REMOTE))
    with pytest.raises(UserError, match=r"^--set output\.drift=URL \(or monitor\.drift=false\) is not given"):
        check_reach(load_settings(sets=[SUMMARIES], flags=REMOTE))
    check_reach(load_settings(sets=["summary.enabled=false", "monitor.drift=false"], flags=REMOTE))
    check_reach(settings("alerts.enabled=false", alert=[]))
    check_reach(load_settings(sets=[SUMMARIES, "monitor.drift=false"], flags=REMOTE))


@pytest.mark.parametrize(
    ("flag", "url"),
    [
        ("sink", ["dynamodb://decisions", "file:decisions"]),
        ("sink", ["decisions"]),
        ("alert", ["alerts.jsonl"]),
        ("dead_letters", "file:/var/dead.jsonl"),
    ],
)
def test_files_are_no_sinks(flag: str, url: object) -> None:
    """A file on a node is lost with it, whether or not another sink is named beside it."""
    with pytest.raises(UserError, match=f"^--{flag}: .* is a file on whichever node"):
        check_reach(settings(**{flag: url}))


def test_files_are_no_place_for_summaries() -> None:
    """Likewise."""
    with pytest.raises(UserError, match=r"^--set output.summaries=URL .*: file:windows.jsonl is a file"):
        check_reach(load_settings(sets=["output.summaries=windows.jsonl"], flags=REMOTE))


@pytest.mark.parametrize(
    ("flag", "url", "named"),
    [
        ("source", "simulator:?days=3", "simulator:"),
        ("source", "day.csv", "file:"),
        ("labels", "chargebacks.csv", "file:"),
        ("source", "kafka://127.0.0.1:9092/transactions", "127.0.0.1:9092"),
        ("source", "kafka://broker:9092,localhost:9092/transactions", "localhost:9092"),
        ("source", "kinesis://transactions?endpoint=http://127.0.0.1:4567", "127.0.0.1:4567"),
        ("sink", ["postgresql://fraud@127.0.0.1:5432/fraud/public/decisions"], "127.0.0.1:5432"),
        ("sink", ["postgresql://fraud@[::1]/fraud/public/decisions"], r"\[::1\]"),
        ("dead_letters", "sqs://dead?endpoint=http://localhost:4566/", "localhost:4566"),
    ],
)
def test_this_machine_is_not_there(flag: str, url: object, named: str) -> None:
    """Made-up transactions, files and loopback servers are refused with the flag, the place, and the way round."""
    with pytest.raises(UserError, match=f"^--{flag}: {named}.*--allow_local"):
        check_reach(settings(**{flag: url}))


def test_hosts_that_only_begin_like_this_machine_pass() -> None:
    """A name is compared as a whole."""
    check_reach(settings(source="kafka://localhost.example.com:9092,127.0.0.1.example.com:9092/transactions"))


def test_models_travel_in_the_wheel() -> None:
    """A directory of this machine would be missing on the nodes, where the model is opened."""
    with pytest.raises(UserError, match=r"^--model: my_models/july is a directory of this machine; copy it into"):
        check_reach(settings(model="my_models/july"))


def test_a_registry_in_a_bucket_is_reached() -> None:
    """For the model and for candidates; one on this machine's disk or loopback is not, and candidates need a sink."""
    there = "registry:s3://bucket/models#champion"
    local = "registry:s3://bucket/models?endpoint=http://127.0.0.1:7070#champion"
    check_reach(settings(model=there, shadow=[there], shadow_sink="s3://bucket/shadow"))
    with pytest.raises(UserError, match=r"^--model: the registry models is a directory of this machine"):
        check_reach(settings(model="registry:models#champion"))
    with pytest.raises(UserError, match=r"^--shadow: 127.0.0.1:7070 is each node itself"):
        check_reach(settings(shadow=[local], shadow_sink="s3://bucket/shadow"))
    with pytest.raises(UserError, match=r"^--shadow_sink is not given: candidates' scores would be files on a node"):
        check_reach(settings(shadow=[there]))
