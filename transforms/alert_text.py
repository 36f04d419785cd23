"""An alert in words, for people. Of Python's own parts only, so that the alert function can carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.card_numbers import mask_card_numbers


def alert_subject(alert: Mapping[str, Any]) -> str:
    """One line of fewer than 100 characters without anything personal in it.

    Example:
        >>> alert_subject({"decision": "decline", "customer_id": "596"})
        'Fraud alert: decline'
    """
    return f"Fraud alert: {_word(alert, 'decision', 'look at this')}"[:99]


def alert_text(alert: Mapping[str, Any], minor_digits: int = 2) -> str:
    """What an analyst wants to read first, in a few lines; card numbers are masked.

    Args:
        alert: the fields of an `Alert`; those that are missing are left out.
        minor_digits: decimals of the amount, 2 where minor units are cents.

    Example:
        >>> print(alert_text({"decision": "review", "transaction_id": "42", "customer_id": "4111111111111111",
        ...                   "amount_minor": 51230, "score": 0.912, "reasons": ["amount: 9 times the usual"],
        ...                   "event_time": "2018-04-01T00:00:31+00:00", "suppressed": 2}))
        review: 512.30, score 0.912
        transaction 42 of customer ************1111 at 2018-04-01T00:00:31+00:00
        - amount: 9 times the usual
        2 more alerts of this card came before and were not sent
    """
    lines = [_what(alert, minor_digits), _who(alert), *(f"- {reason}" for reason in alert.get("reasons") or ())]
    if alert.get("suppressed"):
        lines.append(f"{alert['suppressed']} more alerts of this card came before and were not sent")
    return mask_card_numbers("\n".join(line for line in lines if line))


def alert_line(alert: Mapping[str, Any], minor_digits: int = 2) -> str:
    """The same in at most 140 characters, for a text message.

    Example:
        >>> alert_line({"decision": "review", "transaction_id": "42", "amount_minor": 51230, "score": 0.912})
        'Fraud alert: review: 512.30, score 0.912, transaction 42'
    """
    parts = (f"Fraud alert: {_what(alert, minor_digits)}", _who(alert))
    return mask_card_numbers(", ".join(part for part in parts if part))[:140]


def _what(alert: Mapping[str, Any], minor_digits: int) -> str:
    parts = []
    if isinstance(alert.get("amount_minor"), int):
        parts.append(format_minor(alert["amount_minor"], minor_digits))
    if isinstance(alert.get("score"), (int, float)):
        parts.append(f"score {alert['score']:.3f}")
    return ": ".join(part for part in (_word(alert, "decision", "look at this"), ", ".join(parts)) if part)


def _who(alert: Mapping[str, Any]) -> str:
    places = (("transaction", "transaction_id"), ("of customer", "customer_id"), ("at terminal", "terminal_id"))
    words = [f"{name} {alert[key]}" for name, key in places if alert.get(key)]
    return " ".join([*words, f"at {alert['event_time']}"] if alert.get("event_time") else words)


def _word(alert: Mapping[str, Any], key: str, otherwise: str) -> str:
    """A field as one printable line."""
    return "".join(c for c in str(alert.get(key) or otherwise) if c.isprintable())


def format_minor(amount: int, digits: int) -> str:
    """An amount in minor units as people write it.

    Example:
        >>> format_minor(51230, 2), format_minor(-5, 2), format_minor(1200, 0)
        ('512.30', '-0.05', '1200')
    """
    if digits == 0:
        return str(amount)
    whole, part = divmod(abs(amount), 10**digits)
    return f"{'-' if amount < 0 else ''}{whole}.{part:0{digits}}"
