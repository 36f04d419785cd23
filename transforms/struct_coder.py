"""One coder for small records: MessagePack with field names."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import msgspec


class StructCoder(beam.coders.Coder):
    """A `msgspec.Struct` as MessagePack with field names: a field added later does not break what was written before.

    Register it for a type: `beam.coders.registry.register_coder(Alert, StructCoder)`.

    Args:
        kind: the struct.
    """

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self.kind = kind

    @classmethod
    def from_type_hint(cls, typehint: Any, registry: Any) -> Any:
        return cls(typehint)

    def encode(self, value: msgspec.Struct) -> bytes:
        return msgspec.msgpack.encode(value, order="deterministic")

    def decode(self, encoded: bytes) -> Any:
        return msgspec.msgpack.decode(encoded, type=self.kind)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[msgspec.Struct]:
        return self.kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StructCoder) and self.kind is other.kind

    def __hash__(self) -> int:
        return hash((StructCoder, self.kind))
