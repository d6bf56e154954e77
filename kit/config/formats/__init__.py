"""From the bytes of an item to a tree that knows its lines."""

from collections.abc import Callable

from kit.config.errors import ConfigError, Problem
from kit.config.formats.json import parse_json
from kit.config.formats.toml import parse_toml
from kit.config.formats.yaml import parse_yaml
from kit.config.source import MAX_ITEM_BYTES, KeyValue
from kit.config.tree import Node, Origin, split

_PARSERS: dict[str, Callable[[str, str], Node]] = {
    "yaml": parse_yaml,
    "yml": parse_yaml,
    "json": parse_json,
    "toml": parse_toml,
}


def parse(item: KeyValue) -> Node:
    """The mapping that ``item`` holds.

    Raises:
        ConfigError: an unknown format, too many bytes, no UTF-8, bad syntax, a key given twice, or
            something else than a mapping.
    """
    label = item.origin or item.key
    if len(item.value) > MAX_ITEM_BYTES:
        raise ConfigError.of(f"{len(item.value)} bytes, the limit is {MAX_ITEM_BYTES}", label)
    text = _decode(item.value, label)
    if not item.format:
        leaf = Node(text.removesuffix("\n").removesuffix("\r"), Origin(label, untyped=True))
        return Node({}, Origin(label)).with_value(split(item.key), leaf)
    parser = _PARSERS.get(item.format.lower())
    if parser is None:
        raise ConfigError.of(
            f"the format {item.format!r} of {item.key} is not known; use yaml, json or toml", label
        )
    node = parser(text, label)
    if not item.lines:
        node = node.without_lines()
    if node.value is None:  # an empty file, or nothing but comments
        return Node({}, node.origin)
    if node.children is None:
        raise ConfigError.of("the top level must be a mapping", str(node.origin))
    return node


def _decode(value: bytes, label: str) -> str:
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = value.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{value[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigError([Problem(f"{label}:{line}", "", message)]) from error
