"""What a model knows about its keys, for suggestions and for environment variables."""

import types
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo


def keys(kind: Any) -> dict[str, Any] | None:
    """The keys a mapping of ``kind`` may have, with their types; ``None`` when it is no model."""
    known = [keys_of for option in _options(kind) if (keys_of := _keys_of(option)) is not None]
    return {key: below for keys_of in known for key, below in keys_of.items()} if known else None


def below(kind: Any, key: str | int) -> Any:
    """The type at ``key`` of a value of ``kind``; ``None`` when that cannot be told."""
    known = keys(kind)
    if known is not None:
        return known.get(str(key))
    for option in _options(kind):
        origin, args = get_origin(option), get_args(option)
        if args and isinstance(origin, type) and issubclass(origin, Collection):
            return args[-1] if issubclass(origin, Mapping) else args[0]
    return None


def hides(kind: Any) -> bool:
    """Whether values of ``kind`` must not be shown."""
    return any(option in {SecretStr, SecretBytes} for option in _options(kind))


def decides_on_unknown_keys(kind: Any) -> bool:
    """Whether a model says itself what becomes of keys it does not know."""
    return _is_model(kind) and "extra" in kind.model_config


def _options(kind: Any) -> list[Any]:
    """``kind`` without annotations; of a union each of its members."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _options(get_args(kind)[0])
    if origin in {Union, types.UnionType}:
        return [option for member in get_args(kind) for option in _options(member)]
    return [kind]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _keys_of(kind: Any) -> dict[str, Any] | None:
    """The keys of one model or dataclass."""
    if _is_model(kind):
        return {
            key: field.annotation
            for name, field in kind.model_fields.items()
            for key in _spellings(name, field, kind)
        }
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return {field.name: hints[field.name] for field in fields(kind) if field.init}
    return None


def _spellings(name: str, field: FieldInfo, model: type[BaseModel]) -> list[str]:
    alias = field.validation_alias or field.alias
    config = model.model_config
    by_name = config.get("validate_by_name") or config.get("populate_by_name")
    options = alias.choices if isinstance(alias, AliasChoices) else [alias]
    spellings = [option for option in options if isinstance(option, str)]
    return [*spellings, name] if by_name or not spellings else spellings
