"""``yaml``: messages as Go's struct rules write them, under lower-cased Go names.

Source: go-kratos/kratos encoding/yaml/yaml.go; gopkg.in/yaml.v3.
"""

from typing import Any

import yaml
from google.protobuf.message import Message

from kit.encoding import CodecError, families, structs
from kit.encoding.families import AnyDescriptor, AnyField


class YamlCodec:
    """``application/yaml``."""

    name = "yaml"

    def encode(self, value: Any) -> bytes:
        """See :meth:`kit.encoding.Codec.encode`."""
        if isinstance(value, Message):
            value = structs.to_struct(value, _lowered, defaults=True)
        try:
            return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()
        except yaml.YAMLError as exc:
            raise CodecError(f"{type(value).__name__} cannot be written as YAML: {exc}") from exc

    def decode(self, data: bytes, kind: Any) -> Any:
        """See :meth:`kit.encoding.Codec.decode`."""
        try:
            tree = yaml.load(data, _Loader)  # noqa: S506  (a safe loader)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as exc:
            raise CodecError(f"malformed YAML: {exc}") from exc
        if families.is_google(kind):
            message = kind()
            structs.from_struct(tree, message, _find)
            return message
        if isinstance(kind, type) and not isinstance(tree, kind):
            raise CodecError(f"{type(tree).__name__} given where {kind.__name__} is wanted")
        return tree


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them would unfold into gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise CodecError("YAML with aliases is not taken")
        return super().compose_node(parent, index)


def _lowered(field: AnyField) -> str:
    return structs.go_name(field.name).lower()


def _find(descriptor: AnyDescriptor, name: str) -> AnyField | None:
    return next((field for field in descriptor.fields if _lowered(field) == name), None)
