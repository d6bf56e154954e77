"""``proto``: messages in their binary form.

Source: go-kratos/kratos encoding/proto/proto.go.
"""

from typing import Any

from kit.encoding import families


class ProtoCodec:
    """``application/proto``."""

    name = "proto"

    def encode(self, value: Any) -> bytes:
        """See :meth:`kit.encoding.Codec.encode`."""
        return families.to_bytes(value)

    def decode(self, data: bytes, kind: Any) -> Any:
        """See :meth:`kit.encoding.Codec.decode`."""
        return families.from_bytes(kind, data)
