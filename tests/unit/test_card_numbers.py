"""Card numbers in what is kept of bad records: masked wherever they stand, and nothing else is."""

from __future__ import annotations

import json
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from transforms.batch import from_rows
from transforms.card_numbers import mask_card_numbers
from transforms.dead_letters import PAYLOAD_LIMIT, dead_letters_of_rows, safe_payload


def with_check_digit(digits: str) -> str:
    """`digits` and the one that makes them pass the Luhn check."""
    doubled = [int(c) * (2 if at % 2 == 0 else 1) for at, c in enumerate(reversed(digits))]
    return digits + str(-sum(d - 9 if d > 9 else d for d in doubled) % 10)


CARDS = st.text("0123456789", min_size=12, max_size=18).map(with_check_digit)


def in_groups(card: str, sizes: list[int], separator: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(card[at : at + size])
        at += size
    return separator.join(part for part in [*parts, card[at:]] if part)


@given(
    CARDS,
    st.sampled_from([[], [4, 4, 4, 4], [4, 6, 5], [6, 4, 4]]),
    st.sampled_from([" ", "-"]),
    st.lists(st.text("0123456789", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("0123456789", min_size=1, max_size=4), max_size=3),
)
def test_no_neighbour_hides_a_card_number(
    card: str, sizes: list[int], separator: str, before: list[str], after: list[str]
) -> None:
    """In groups or not, between a date, an expiry date and other numbers: its digits never stand there in full."""
    text = " ".join([*before, in_groups(card, sizes, separator), *after])
    masked = mask_card_numbers(f'{{"note": "{text}"}}')
    assert card not in "".join(c for c in masked if c.isdigit() or c == "*")
    assert masked.startswith('{"note": "')
    assert masked.endswith('"}')


@given(CARDS, st.sampled_from(["", "-", "+", "$", "x", ",", "id="]), st.sampled_from(["", ".0", ".00", ",", "x", "e"]))
def test_what_stands_beside_it_does_not_matter(card: str, before: str, after: str) -> None:
    """As a number with decimals, a sign or letters beside it, a card number is masked but for its last four digits."""
    expected = "*" * (len(card) - 4) + card[-4:]
    assert mask_card_numbers(before + card + after) == before + expected + after


def test_a_number_that_only_looks_like_a_card_does_not_bare_the_next_one() -> None:
    """Two candidates that share digits are masked as one: the first one's last four may be the second one's first."""
    assert mask_card_numbers("1333 2298 2298 0000 0000 0000 0") == "*********************0000"


def test_other_numbers_stay() -> None:
    """Ids, amounts, times and fractions that are no card numbers are left as they are."""
    text = '{"id": 1234567890123, "amount": 57.1600000000000000, "at": "2026-01-02T03:04:05", "p": 0.4111111111111111}'
    assert mask_card_numbers(text) == text
    assert mask_card_numbers("4" * 40) == "4" * 40


def test_a_payload_is_cut_after_it_was_masked() -> None:
    """A card number that lies across the end of what is kept shows no more than its last digits."""
    card = "4111111111111111"
    for at in range(PAYLOAD_LIMIT - 20, PAYLOAD_LIMIT + 2):
        assert "41111" not in safe_payload(" " * at + card)


def test_rows_keep_their_time_to_the_microsecond() -> None:
    """The dead letter of a row has its exact event time, and its id without a card number."""
    times = [1_767_323_045_123_457 + 1_000_003 * n for n in range(200)]
    batch = from_rows([{"transaction_id": "4111111111111111", "event_time": t, "amount_minor": 1} for t in times])
    letters = dead_letters_of_rows(batch, "deduplicate", "duplicate", "seen")
    assert [letter.event_time for letter in letters] == times
    assert {letter.transaction_id for letter in letters} == {"************1111"}
    assert json.loads(letters[0].payload)["transaction_id"] == "************1111"


@given(st.uuids(version=4), st.sampled_from(["", "id=", '"', " "]), st.sampled_from(["", '"', ",", " 12/27"]))
def test_a_uuid_is_no_card_number(uuid: UUID, before: str, after: str) -> None:
    """Ids of transactions stand whole in alerts and dead letters, also where their digits pass for a card number."""
    for text in (str(uuid), uuid.hex):
        assume(any(c.isalpha() for c in text))
        assert mask_card_numbers(before + text + after) == before + text + after


def test_a_uuid_whose_digits_pass_for_a_card_number_is_kept() -> None:
    """One in some hundreds does: `809-4809-8439-93` passes the Luhn check, and stands in a UUID."""
    uuid = "8fdaa809-4809-8439-93b6-9a281cb03e73"
    assert mask_card_numbers(uuid) == uuid
    assert mask_card_numbers(f"{uuid} 4111111111111111") == f"{uuid} ************1111"
    assert mask_card_numbers("x809-4809-8439-93b") != "x809-4809-8439-93b"
