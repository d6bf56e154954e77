"""Messages of several packages, told apart by what they can do.

==================  ==========================================================================
google.protobuf     ``SerializeToString`` and ``FromString``, with a ``DESCRIPTOR``
betterproto(2)      ``bytes(message)`` and ``parse``; ``to_json`` and ``from_json``
protobuf-py         ``to_binary`` and ``from_binary``; ``to_json`` and ``from_json``
==================  ==========================================================================

The kit itself uses the first; of the others only the methods are known, none is imported. Their
JSON is what their package makes of it.
"""

from typing import Any, TypeAlias, get_args, get_type_hints

from google.protobuf.message import Message

from kit.encoding import CodecError

AnyField: TypeAlias = Any
"""A ``FieldDescriptor``: the stubs name two classes for one thing, and give either."""
AnyDescriptor: TypeAlias = Any
"""A ``Descriptor`` or ``EnumDescriptor``, likewise."""

_FOREIGN = (("to_binary", "from_binary"), ("__bytes__", "parse"))


def is_google(kind: Any) -> bool:
    """Whether ``kind`` is a message class of google.protobuf."""
    return isinstance(kind, type) and issubclass(kind, Message)


def is_foreign(kind: Any) -> bool:
    """Whether ``kind`` is a message class of another package."""
    return isinstance(kind, type) and any(
        hasattr(kind, out) and hasattr(kind, back) for out, back in _FOREIGN
    )


def is_message(kind: Any) -> bool:
    """Whether ``kind`` is a message class at all."""
    return is_google(kind) or is_foreign(kind)


def annotated(behaviour: Any) -> Any:
    """The message class of another package that a method's first annotation names; else ``None``.

    Of ``AsyncIterator[Kind]`` and its like it is ``Kind``.
    """
    try:
        hints = get_type_hints(behaviour)
    except Exception:  # noqa: BLE001  (annotations are anybody's; those of strangers may be broken)
        return None
    hints.pop("return", None)
    kind = next(iter(hints.values()), None)
    kind = next(iter(get_args(kind)), kind)
    return kind if is_foreign(kind) and not is_google(kind) else None


def to_bytes(message: Any) -> bytes:
    """The wire form of a message.

    Raises:
        CodecError: it is none.
    """
    if isinstance(message, Message):
        return message.SerializeToString()
    if is_foreign(type(message)):
        to_binary = getattr(message, "to_binary", None)
        return bytes(message) if to_binary is None else bytes(to_binary())
    raise CodecError(f"{type(message).__name__} is not a protobuf message")


def from_bytes(kind: Any, data: bytes) -> Any:
    """A message of the class ``kind``.

    Raises:
        CodecError: ``data`` is not the wire form of one, or ``kind`` is no message class.
    """
    if not is_message(kind):
        raise CodecError(f"{getattr(kind, '__name__', kind)} is not a protobuf message")
    try:
        if is_google(kind):
            return kind.FromString(data)
        read = getattr(kind, "from_binary", None)
        # an instance has both forms of parse: betterproto's method, betterproto2's class method
        return kind().parse(data) if read is None else read(data)
    except Exception as exc:  # each package raises its own
        raise CodecError(f"not a {kind.__name__}: {exc or type(exc).__name__}") from exc


def to_json(message: Any) -> bytes:
    """The JSON that the message's own package makes.

    Raises:
        CodecError: the package makes none.
    """
    try:
        return str(message.to_json()).encode()
    except Exception as exc:  # each package raises its own
        raise CodecError(f"{type(message).__name__} cannot be written: {exc}") from exc


def from_json(kind: Any, data: bytes) -> Any:
    """A message of the class ``kind`` out of JSON, read by its own package.

    Raises:
        CodecError: it cannot be read.
    """
    try:
        # an instance has both forms: betterproto's method, and the class methods of the others
        return kind().from_json(data.decode())
    except Exception as exc:  # each package raises its own
        raise CodecError(f"not a {kind.__name__}: {exc or type(exc).__name__}") from exc
