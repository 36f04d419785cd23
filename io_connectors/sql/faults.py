"""What an error of a database means: try again, leave the row out, or stop."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """What is to be done about a failed transaction."""

    TRANSIENT = "try again"
    DATA = "some row cannot be written"
    REFUSED = "someone must change something in the database"
    FINAL = "nothing will help"


#: Classes of SQLSTATE, and single ones where their class says too little.
_TRANSIENT = frozenset(("08", "40", "53", "57", "58"))
_DATA = frozenset(("22", "23", "54"))
_SINGLE = {
    "25006": Fault.TRANSIENT,  # read-only: a standby that is about to be promoted, or was the primary a moment ago
    "25P03": Fault.TRANSIENT,  # idle in transaction for too long: we were held up
    "28000": Fault.REFUSED,  # this user may not connect
    "3F000": Fault.REFUSED,  # no such schema
    "42501": Fault.REFUSED,  # a privilege is missing
    "42703": Fault.REFUSED,  # no such column any more
    "42804": Fault.REFUSED,  # a column of another type
    "42809": Fault.REFUSED,  # a view, or what else is no table
    "42P01": Fault.REFUSED,  # no such table any more
    "55006": Fault.TRANSIENT,  # object in use
    "55P03": Fault.TRANSIENT,  # lock not available
}


def fault_of_state(state: str) -> Fault:
    """What an SQLSTATE means.

    Example:
        >>> [fault_of_state(state).name for state in ("40P01", "22003", "42501", "42601")]
        ['TRANSIENT', 'DATA', 'REFUSED', 'FINAL']
    """
    if state in _SINGLE:
        return _SINGLE[state]
    if state[:2] in _TRANSIENT:
        return Fault.TRANSIENT
    return Fault.DATA if state[:2] in _DATA else Fault.FINAL
