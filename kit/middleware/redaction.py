"""Messages as text without what their authors marked: ``string card = 1 [debug_redact = true];``.

``debug_redact`` is a field option of protobuf itself, so a service needs no proto of ours for it.

Source: google/protobuf descriptor.proto, FieldOptions.debug_redact.
"""

from functools import lru_cache
from io import StringIO
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

REDACTED = "[REDACTED]"


def redacted(message: Message) -> str:
    """One line of protobuf text; marked fields say :data:`REDACTED`, at any depth."""
    if not _hides(message.DESCRIPTOR):
        return text_format.MessageToString(message, as_one_line=True)
    parts: list[str] = []
    _write(message, parts)
    return " ".join(parts)


def _write(message: Message, parts: list[str]) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            parts.append(f"{field.name}: {REDACTED}")
        elif field.message_type is None or not _hides(field.message_type):
            _write_plain(field, value, parts)
        elif field.message_type.GetOptions().map_entry:
            for key in value:
                parts.append(f"{field.name} {{ key: {key!r} value {{")
                _write(value[key], parts)
                parts.append("} }")
        else:
            for each in value if field.is_repeated else (value,):
                parts.append(f"{field.name} {{")
                _write(each, parts)
                parts.append("}")


def _write_plain(field: FieldDescriptor, value: Any, parts: list[str]) -> None:
    out = StringIO()
    values = value if field.is_repeated else (value,)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        # The printer wants the entries of a map, which the map itself does not give.
        entry: Any = GetMessageClass(field.message_type)
        values = [entry(key=key, value=value[key]) for key in value]
    for each in values:
        text_format.PrintField(field, each, out, as_one_line=True)
    parts.append(out.getvalue().strip())


@lru_cache(maxsize=1_000)
def _hides(descriptor: Descriptor) -> bool:
    """Whether a field is marked in this message or in one that it may hold."""
    seen: set[str] = set()
    ahead = [descriptor]
    while ahead:
        found = ahead.pop()
        if found.full_name in seen:
            continue
        seen.add(found.full_name)
        for field in found.fields:
            if field.GetOptions().debug_redact:
                return True
            if field.message_type is not None:
                ahead.append(field.message_type)
    return False
