"""What Redshift's errors mean. Many have one SQLSTATE, XX000, or reach us without any: then their words must tell."""

from __future__ import annotations

from io_connectors.sql.faults import Fault, fault_of_state

#: Looked for in this order, in lower case.
_WORDS: tuple[tuple[Fault, tuple[str, ...]], ...] = (
    (
        Fault.TRANSIENT,
        (
            "serializable isolation violation",
            "concurrent transaction",
            "deadlock",
            "could not open relation",  # it was replaced while the transaction waited
            "1018 detail",  # it was created while the transaction waited
            "cancelled",
            "canceled",
            "aborted",
            "timeout",
            "timed out",
            "terminating connection",
            "shutting down",
            "restart",
            "too many connections",
            "out of memory",
            "disk full",
            "slowdown",
            "slow down",
            "service unavailable",
            "internal error",
            "throttl",
        ),
    ),
    (
        Fault.DATA,
        (
            "stl_load_errors",
            "sys_load_error_detail",
            "too long for type",
            "out of range",
            "overflow",
            "invalid digit",
            "invalid input syntax",
            "cannot be cast",
            "cannot insert a null",
            "not-null constraint",
        ),
    ),
    (
        Fault.REFUSED,
        (
            "permission denied",
            "access denied",
            "accessdenied",
            "not authorized",
            "does not exist",
            "incompatible parquet schema",
            "authentication failed",
        ),
    ),
)
_UNTOLD = ("", "XX000")


def fault_of(state: str, words: str) -> Fault:
    """What an error means.

    Args:
        state: its SQLSTATE, where it has one.
        words: the database's own.

    Example:
        >>> fault_of("XX000", "1023 DETAIL: Serializable isolation violation on table - 112, transactions ...").name
        'TRANSIENT'
        >>> fault_of("", "ERROR: Load into table 'staged' failed. Check 'stl_load_errors' for details.").name
        'DATA'
    """
    if state not in _UNTOLD:
        return fault_of_state(state)
    lower = words.lower()
    return next((fault for fault, known in _WORDS if any(word in lower for word in known)), Fault.FINAL)
