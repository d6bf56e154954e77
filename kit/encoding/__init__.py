"""How messages become bytes and back, one codec a name.

The names are the sub-types of content types: ``json``, ``protojson``, ``proto``, ``xml``, ``yaml``
and ``x-www-form-urlencoded``. Codecs stand beside this file, :func:`kit.encoding.standard.codecs`
makes the table of a server or client.

Source: go-kratos/kratos encoding/encoding.go.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

_TYPES_KEPT = 100


class CodecError(ValueError):
    """Bytes that are not what they should be, or a value that a codec cannot write."""


class Codec(Protocol):
    """Writes and reads values in one form."""

    @property
    def name(self) -> str:
        """The sub-type of its content type, in lower case."""
        ...

    def encode(self, value: Any) -> bytes:
        """The bytes of ``value``.

        Raises:
            CodecError: this codec has no form for it.
        """
        ...

    def decode(self, data: bytes, kind: Any) -> Any:
        """A new value of the type ``kind``, out of ``data``.

        Raises:
            CodecError: ``data`` is malformed, or is no such value; the text says where.
        """
        ...


class CodecTable:
    """Codecs by name.

    >>> CodecTable().for_content_type("application/json; charset=utf-8") is None
    True
    """

    def __init__(self, codecs: Iterable[Codec] = ()) -> None:
        self._codecs: dict[str, Codec] = {}
        self._found: dict[str, Codec | None] = {}
        for codec in codecs:
            self.register(codec)

    def register(self, codec: Codec) -> None:
        """Use ``codec`` for its name from now on.

        Raises:
            ValueError: the name is empty or not in lower case, so no content type would find it.
        """
        if not codec.name or codec.name != codec.name.lower():
            raise ValueError(f"codec name {codec.name!r} is not a word in lower case")
        self._codecs[codec.name] = codec
        self._found.clear()

    def get(self, name: str) -> Codec | None:
        """The codec of exactly this name."""
        return self._codecs.get(name)

    def for_content_type(self, text: str) -> Codec | None:
        """The codec of a Content-Type or of one Accept header."""
        try:
            return self._found[text]
        except KeyError:
            found = self._codecs.get(subtype(text))
        if len(self._found) < _TYPES_KEPT:
            self._found[text] = found
        return found

    def __iter__(self) -> Iterator[Codec]:
        return iter(self._codecs.values())


def subtype(content_type: str) -> str:
    """The text between ``/`` and ``;``, as it is written; empty when there is none.

    Source: go-kratos/kratos internal/httputil/http.go, ContentSubtype.

    >>> subtype("application/json; charset=utf-8"), subtype("text/json"), subtype("json")
    ('json', 'json', '')
    """
    return content_type.partition("/")[2].partition(";")[0].rstrip()


__all__ = ["Codec", "CodecError", "CodecTable", "subtype"]
