r"""A service instance as the JSON that kratos keeps in etcd, byte for byte.

>>> from kit.registry import ServiceInstance
>>> encode(ServiceInstance("h1", "trans", "v1", None, ("grpc://10.0.0.5:9000",)))
b'{"id":"h1","name":"trans","version":"v1","metadata":null,"endpoints":["grpc://10.0.0.5:9000"]}'

Source: go-kratos/kratos registry/registry.go, ServiceInstance; Go's encoding/json for the form:
HTML characters and the two line separators escaped, other text as UTF-8, map keys ordered.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from kit.errors import BadRequest
from kit.registry import ServiceInstance

_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(instance: ServiceInstance) -> bytes:
    """The value that announces ``instance``.

    Raises:
        BadRequest: the name is empty, or something that has to be text is not. A kratos service
            that reads one such value finds no instance at all.
    """
    if not instance.name:
        raise BadRequest("INVALID_INSTANCE", "instance.name is empty; name the service")
    if not isinstance(instance.endpoints, tuple | list):
        raise BadRequest(
            "INVALID_INSTANCE",
            f"instance.endpoints: {instance.endpoints!r} is no tuple of URLs",
        )
    metadata = instance.metadata
    fields = {
        "id": _text(instance.id, "id"),
        "name": _text(instance.name, "name"),
        "version": _text(instance.version, "version"),
        "metadata": None if metadata is None else _text_map(metadata),
        "endpoints": [
            _text(endpoint, f"endpoints[{position}]")
            for position, endpoint in enumerate(instance.endpoints)
        ],
    }
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    # These characters stand only inside strings: nothing of the form itself is touched.
    return text.translate(_ESCAPES).encode()


def decode(value: bytes) -> ServiceInstance:
    """The instance that ``value`` announces, read as Go reads it.

    Unknown keys are ignored, missing ones and nulls are empty, keys match in any case. Without
    endpoints there are none, whether the list is empty, null or missing.

    Raises:
        ValueError: it is not JSON, not an object, or a field has the wrong type.
    """
    text = value.decode(errors="replace")
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError(f"a JSON object is wanted, this is {_kind(fields)}")  # noqa: TRY004  as json raises
    known: dict[str, Any] = {key.casefold(): field for key, field in fields.items()}
    metadata = _read(known, "metadata", dict)
    endpoints = _read(known, "endpoints", list)
    return ServiceInstance(
        _read(known, "id", str) or "",
        _read(known, "name", str) or "",
        _read(known, "version", str) or "",
        None
        if metadata is None
        else {_whole(key): _element(item, f"metadata.{key}") for key, item in metadata.items()},
        tuple(_element(item, "endpoints") for item in endpoints or ()),
    )


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadRequest("INVALID_INSTANCE", f"instance.{name}: {value!r} is not text; write str()")
    return _whole(value)


def _text_map(metadata: Mapping[str, str]) -> dict[str, str]:
    pairs = {
        _text(key, f"metadata key {key!r}"): _text(value, f"metadata[{key!r}]")
        for key, value in metadata.items()
    }
    return dict(sorted(pairs.items()))


def _read(fields: dict[str, Any], name: str, kind: type) -> Any:
    """The field, ``None`` when it is missing or null.

    Raises:
        ValueError: it is of another kind.
    """
    value = fields.get(name)
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name}: {_kind(value)} where {_NAMES[kind]} is wanted")
    return _whole(value) if isinstance(value, str) else value


def _element(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name}: {_kind(value)} where text is wanted")  # noqa: TRY004  as above
    return _whole(value)


def _whole(text: str) -> str:
    """``text`` as Go has it: pairs of surrogates are characters, halves are U+FFFD."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_NAMES: dict[type, str] = {str: "text", dict: "an object", list: "a list"}


def _kind(value: object) -> str:
    return _NAMES.get(type(value), "null" if value is None else f"{value!r:.40}")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
