"""Connector URLs: what is understood, and what is refused with which words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.urls import ConnectorUrl, Scheme, parse_url
from transforms.errors import UserError

SCHEMES = {
    "file": Scheme("a file", ("rows_per_file", "format")),
    "simulator": Scheme("", ("customers", "rate")),
    "postgresql": Scheme("a server and database", ("table",)),
    "kafka": Scheme("a topic", ("brokers",)),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data/tx.csv", ConnectorUrl("file", "data/tx.csv")),
        ("/data/a:b@c.csv", ConnectorUrl("file", "/data/a:b@c.csv")),
        ("./kafka:tx.csv", ConnectorUrl("file", "./kafka:tx.csv")),
        ("data/part-?.csv", ConnectorUrl("file", "data/part-?.csv")),
        ("file:part-?.csv?format=csv", ConnectorUrl("file", "part-?.csv", {"format": "csv"})),
        ("file:///data/tx.csv", ConnectorUrl("file", "/data/tx.csv")),
        ("FILE:tx.csv", ConnectorUrl("file", "tx.csv")),
        ("simulator:", ConnectorUrl("simulator")),
        ("simulator:?", ConnectorUrl("simulator")),
        ("simulator:?customers=10&rate=2.5", ConnectorUrl("simulator", "", {"customers": "10", "rate": "2.5"})),
        (
            "postgresql://ana@db:5432/fraud?table=a%26b",
            ConnectorUrl("postgresql", "ana@db:5432/fraud", {"table": "a&b"}),
        ),
        ("kafka:tx?brokers=b1:9092,b2:9092", ConnectorUrl("kafka", "tx", {"brokers": "b1:9092,b2:9092"})),
        ("kafka:tx?brokers=a+b", ConnectorUrl("kafka", "tx", {"brokers": "a+b"})),
    ],
)
def test_a_url_is_cut_into_scheme_path_and_parameters(text: str, expected: ConnectorUrl) -> None:
    """Bare paths, globs with question marks, empty parameters and percent escapes mean what they look like."""
    assert parse_url(text, SCHEMES) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "simulater:",
            "--source: unknown scheme 'simulater'; known are file, kafka, postgresql, simulator; did you mean",
        ),
        ("simulator:?custommers=1", "parameter 'custommers'; known are customers, rate; did you mean customers?"),
        ("simulator:?customers", "simulator: takes no path, found '?customers'; write parameters as simulator:?name="),
        ("simulator:?customers=", "customers has no value"),
        ("simulator:?customers=1&customers=2", "customers is given more than once"),
        ("simulator:?customers=1&&rate=1", "unknown parameter ''"),
        ("simulator:days", "simulator: takes no path, found 'days'"),
        ("file:", "file: needs a file after the colon"),
        ("", "file: needs a file after the colon"),
        ("file:a\0b", "NUL"),
    ],
)
def test_a_wrong_url_is_refused_with_what_was_found_and_what_is_known(text: str, message: str) -> None:
    """Each mistake has one message that names the setting, the mistake and the way out."""
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        parse_url(text, SCHEMES, "--source")
    assert str(caught.value).startswith("--source")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ana:s3cret@db/fraud",
        "postgresql://ana:s3cret/x@db/fraud",
        "postgresql://ana:s3cret?x@db/fraud?table=t",
        "postgresql:ana:s3cret@db/fraud",
        "postgrsql://ana:s3cret@db/fraud",
        "simulator://ana:s3cret@x",
        "ana:s3cret@db/fraud",
        "postgresql://db/fraud?password=s3cret",
    ],
)
def test_a_password_is_refused_and_never_repeated(text: str) -> None:
    """Whatever else is wrong with a URL that holds a password, no message shows the password."""
    with pytest.raises(UserError) as caught:
        parse_url(text, SCHEMES, "--sink")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["ten", "1.5", "-1", "1e3", "", "٣"])
def test_a_parameter_that_is_no_whole_number_is_refused(text: str) -> None:
    """`integer` takes ASCII digits from its least value up, and names the parameter and what it found."""
    url = ConnectorUrl("simulator", parameters={"customers": text})
    with pytest.raises(UserError, match=f"customers must be a whole number of at least 0; found {text!r}"):
        url.integer("customers", default=5)


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "-0.5", "1_0"])
def test_a_parameter_that_is_no_finite_number_is_refused(text: str) -> None:
    """`number` takes finite decimals from its least value up."""
    with pytest.raises(UserError, match="rate must be a number of at least 0"):
        ConnectorUrl("simulator", parameters={"rate": text}).number("rate", default=1.0)


def test_an_absent_parameter_has_its_default() -> None:
    """The default is taken as it is, even below the least value a user may give."""
    url = ConnectorUrl("simulator", parameters={"rate": ".5"})
    assert (url.integer("customers", default=-1), url.number("rate", default=9.0)) == (-1, 0.5)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_url_written_out_and_read_again_is_the_same(value: str) -> None:
    """No text in a parameter is lost or cut when a URL is printed and parsed."""
    url = ConnectorUrl("kafka", "tx", {"brokers": value})
    assert parse_url(str(url), SCHEMES) == url


def test_a_word_that_is_none_of_the_choices_is_refused() -> None:
    """`choice` names what may be said, and what was probably meant."""
    url = ConnectorUrl("dynamodb", "decisions", {"existing": "kepp"})
    with pytest.raises(UserError, match=r"existing must be keep or replace; found 'kepp'; did you mean keep\?"):
        url.choice("existing", ("keep", "replace"), default="keep")


@pytest.mark.parametrize(("text", "why"), [("30", "is not a duration"), ("0", "must be at least 1us"), ("-1d", "dur")])
def test_a_parameter_that_is_no_duration_is_refused(text: str, why: str) -> None:
    """`duration` takes a number with a unit, and no less than it is told."""
    with pytest.raises(UserError, match=f"ttl.*{why}"):
        ConnectorUrl("dynamodb", "decisions", {"ttl": text}).duration("ttl")
