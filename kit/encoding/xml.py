"""``xml``: messages as Go's struct rules write them, fit for simple messages only.

An element a field, under the field's Go name; maps have no form. A document type is refused, and
with it every entity that is not of XML itself.

Source: go-kratos/kratos encoding/xml/xml.go; encoding/xml of Go.
"""

from typing import Any
from xml.etree import ElementTree as ET

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kit.encoding import CodecError, families, form, protojson, structs
from kit.encoding.families import AnyDescriptor, AnyField

_DEEPEST = 100


class XmlCodec:
    """``application/xml`` and ``text/xml``."""

    name = "xml"

    def encode(self, value: Any) -> bytes:
        """See :meth:`kit.encoding.Codec.encode`."""
        if not isinstance(value, Message):
            raise CodecError(f"{type(value).__name__} is not a protobuf message")
        root = ET.Element(structs.go_name(value.DESCRIPTOR.name))
        _write(value, root)
        return bytes(ET.tostring(root, encoding="utf-8", short_empty_elements=False))

    def decode(self, data: bytes, kind: Any) -> Any:
        """See :meth:`kit.encoding.Codec.decode`."""
        if not families.is_google(kind):
            raise CodecError(f"{getattr(kind, '__name__', kind)} is not a protobuf message")
        parser = ET.XMLParser(target=_Tree())  # noqa: S314  (no document type, so no entities)
        try:
            parser.feed(data)
            root = parser.close()
        except (ET.ParseError, LookupError, ValueError) as exc:
            raise CodecError(f"malformed XML: {exc}") from exc
        message = kind()
        _read(root, message)
        return message


class _Tree(ET.TreeBuilder):
    """Builds elements, not too deep, and refuses document types."""

    _depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ET.Element:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise CodecError(f"XML is nested more than {_DEEPEST} levels deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ET.Element:
        self._depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called for a document type."""
        raise CodecError("XML with a document type is not taken")


def _write(message: Message, parent: ET.Element) -> None:
    for field in message.DESCRIPTOR.fields:
        if protojson.is_map(field):
            if len(getattr(message, field.name)):
                raise CodecError(f"{field.full_name}: a map has no form in XML")
            continue
        if field.has_presence and not field.is_repeated and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        for each in value if field.is_repeated else (value,):
            element = ET.SubElement(parent, structs.go_name(field.name))
            if field.message_type is not None:
                _write(each, element)
            elif field.type == FieldDescriptor.TYPE_BYTES:
                element.text = each.decode("utf-8", "replace")
            else:
                element.text = form.key_text(each)


def _read(element: ET.Element, message: Message) -> None:
    fields = _names(message.DESCRIPTOR)
    for child in element:
        field = fields.get(child.tag.rpartition("}")[2])
        if field is None or protojson.is_map(field):
            continue
        target = getattr(message, field.name)
        if field.message_type is not None:
            into = target.add() if field.is_repeated else target
            into.SetInParent()
            _read(child, into)
            continue
        value = _scalar(field, (child.text or "").strip())
        if field.is_repeated:
            target.append(value)
        else:
            setattr(message, field.name, value)


def _names(descriptor: AnyDescriptor) -> dict[str, AnyField]:
    return {structs.go_name(field.name): field for field in descriptor.fields}


def _scalar(field: AnyField, text: str) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return text.encode()
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    return form.scalar(field, text or "0")
