from __future__ import annotations

import pytest

from io_connectors.aws import client
from transforms.errors import UserError


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        ("eu-west-1", {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-2"}, "eu-west-1"),
        (None, {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-2"}, "us-east-1"),
        (None, {"AWS_REGION": "us-east-2"}, "us-east-2"),
    ],
)
def test_the_region_is_the_urls_or_the_environments(
    given: str | None, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers set AWS_REGION, which boto3 does not look at."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = client("dynamodb", given)
    assert made.meta.region_name == expected
    made.close()


def test_no_region_at_all_is_an_error_that_says_where_to_give_one() -> None:
    """It is known before the first call."""
    with pytest.raises(UserError, match=r"no AWS region; give \?region= in the URL, or set AWS_REGION"):
        client("dynamodb")
