"""What of a bucket has been seen: little enough to lie in every checkpoint, enough to give each object once."""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import numpy as np
from apache_beam.coders import Coder

from io_connectors.s3.listing import Found, Listing
from transforms.durations import DAY

#: An upload in parts counts from when it began; one that took longer than this is never noticed.
MEMORY = DAY
#: The deadline of what has none.
ENDLESS = (1 << 63) - 1


class Seen(NamedTuple):
    """How far watching a bucket has come.

    Names of objects need not rise with time, so none can stand for all before it. Times of objects do, but for
    uploads in parts: what is older than `since` has been seen, and of what is not, the versions seen are remembered.

    Attributes:
        since: microseconds since 1970.
        versions: 64-bit hashes of the keys and etags seen of objects put since then: ascending, eight bytes each.
        due: when to look again, in microseconds since 1970.
        deadline: when looking ends, or `ENDLESS`.
        skips: whether the next look takes all that is there as seen.
        over: whether there is nothing left to do.
    """

    since: int
    versions: bytes = b""
    due: int = 0
    deadline: int = ENDLESS
    skips: bool = False
    over: bool = False

    def look(self, listing: Listing, due: int, over: bool) -> tuple[Seen, list[Found]]:
        """What has been seen after a look at the bucket, and what of it is new, the oldest first.

        Args:
            listing: what is there.
            due: when to look again.
            over: whether this was the last look.

        Example:
            >>> first = Listing([Found("b", "e1", 1, 10), Found("a", "e2", 1, 20)], asked=30)
            >>> seen, new = Seen(since=0).look(first, due=60, over=False)
            >>> [found.key for found in new]
            ['b', 'a']
            >>> later = Listing([*first.found, Found("aa", "e3", 1, 20), Found("b", "e4", 1, 50)], asked=60)
            >>> [found.key for found in seen.look(later, due=90, over=False)[1]]
            ['aa', 'b']
        """
        recent = [found for found in listing.found if found.modified >= self.since]
        versions = np.array([_version(found) for found in recent], dtype="<u8")
        is_new = ~np.isin(versions, np.frombuffer(self.versions, dtype="<u8"))
        new = [found for found, fresh in zip(recent, is_new.tolist(), strict=True) if fresh]
        since = max([self.since, *(found.modified - MEMORY for found in recent)])
        kept = np.array([found.modified >= since for found in recent], dtype=np.bool_)
        after = Seen(since, np.unique(versions[kept]).tobytes(), due, self.deadline, False, over)
        return after, [] if self.skips else sorted(new, key=lambda found: (found.modified, found.key))


def _version(found: Found) -> int:
    text = f"{found.etag}/{found.key}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class SeenCoder(Coder):
    """A version byte, the numbers, two flags, the hashes as they are.

    Example:
        >>> seen = Seen(since=7, versions=bytes(16), due=9, skips=True)
        >>> SeenCoder().decode(SeenCoder().encode(seen)) == seen
        True
    """

    VERSION = 1
    _FORM = struct.Struct(">Bqqq??")

    def encode(self, value: Seen) -> bytes:
        head = self._FORM.pack(self.VERSION, value.since, value.due, value.deadline, value.skips, value.over)
        return head + value.versions

    def decode(self, encoded: bytes) -> Seen:
        if encoded[0] != self.VERSION:
            raise ValueError(
                f"what was seen of a bucket, in coder version {encoded[0]}, cannot be read by version {self.VERSION}: "
                "restore with the release that wrote it"
            )
        _, since, due, deadline, skips, over = self._FORM.unpack_from(encoded)
        return Seen(since, encoded[self._FORM.size :], due, deadline, skips, over)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[Seen]:
        return Seen
