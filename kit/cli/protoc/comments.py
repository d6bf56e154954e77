"""The comments of a proto file by full name.

Source: google/protobuf/descriptor.proto, SourceCodeInfo.
"""

from typing import Any

from google.protobuf import descriptor_pb2

# Numbers of fields in descriptor.proto, of which paths are made.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM = 2, 3, 4
_ENUM_VALUE, _SERVICE_METHOD = 2, 2

Path = tuple[int, ...]


def comments_of(file: descriptor_pb2.FileDescriptorProto) -> dict[str, str]:
    """Leading comments, or trailing ones where there are no leading ones."""
    names = dict(_names(file))
    found: dict[str, str] = {}
    for location in file.source_code_info.location:
        text = location.leading_comments or location.trailing_comments
        name = names.get(tuple(location.path))
        if text and name:
            lines = (line.removeprefix(" ").rstrip() for line in text.strip("\n").split("\n"))
            found[name] = "\n".join(lines).strip()
    return found


def _names(file: descriptor_pb2.FileDescriptorProto) -> list[tuple[Path, str]]:
    prefix = f"{file.package}." if file.package else ""
    found: list[tuple[Path, str]] = []
    for index, service in enumerate(file.service):
        path: Path = (_FILE_SERVICE, index)
        name = f"{prefix}{service.name}"
        found.append((path, name))
        for number, method in enumerate(service.method):
            found.append(((*path, _SERVICE_METHOD, number), f"{name}.{method.name}"))
    for index, message in enumerate(file.message_type):
        _of_message(message, (_FILE_MESSAGE, index), prefix, found)
    for index, enum in enumerate(file.enum_type):
        _of_enum(enum, (_FILE_ENUM, index), prefix, found)
    return found


def _of_message(message: Any, path: Path, prefix: str, found: list[tuple[Path, str]]) -> None:
    name = f"{prefix}{message.name}"
    found.append((path, name))
    for index, field in enumerate(message.field):
        found.append(((*path, _MESSAGE_FIELD, index), f"{name}.{field.name}"))
    for index, nested in enumerate(message.nested_type):
        _of_message(nested, (*path, _MESSAGE_NESTED, index), f"{name}.", found)
    for index, enum in enumerate(message.enum_type):
        _of_enum(enum, (*path, _MESSAGE_ENUM, index), f"{name}.", found)


def _of_enum(enum: Any, path: Path, prefix: str, found: list[tuple[Path, str]]) -> None:
    name = f"{prefix}{enum.name}"
    found.append((path, name))
    for index, value in enumerate(enum.value):
        found.append(((*path, _ENUM_VALUE, index), f"{name}.{value.name}"))
