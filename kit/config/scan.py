"""From a tree to the types a program works with, with everything that is wrong at once."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from kit.config import models
from kit.config.errors import ConfigError, Problem
from kit.config.names import find_key, variable_name
from kit.config.tree import Node, Path, Plain, join
from kit.config.types import WRITTEN
from kit.log import MASK, escape, is_secret, mask_urls, masked

T = TypeVar("T")

MAX_SHOWN_CHARS = 80
"""Of a value in a message."""

_WANTS_MAPPING = {"model_type", "model_attributes_type", "dict_type", "dataclass_type"}
_WANTS_LIST = {"list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"}
_UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}
_PREFIXES = ("Value error, ", "Assertion failed, ")


def scan(root: Node, path: Path, kind: type[T]) -> T:
    """What stands at ``path``, as a ``kind``.

    Environment variables that no key was known for get another chance: the model may know it.

    Raises:
        ConfigError: with a problem for each value that does not fit, key that is not known or not
            there.
    """
    node = root.find(path) or Node({}, root.origin)
    node = _placed(root, node, path, kind)
    try:
        return _validate(node, kind)
    except ValidationError as error:
        typed = _typed(node, error)
        if typed is node:
            raise _error(error, node, path, kind) from None  # its text would show secrets
    try:
        return _validate(typed, kind)
    except ValidationError as error:
        raise _error(error, typed, path, kind) from None


def _validate(node: Node, kind: type[T]) -> T:
    data: Plain = node.plain()
    if (entries := node.children) is not None:
        data = {key: below.plain() for key, below in entries.items() if not below.origin.unplaced}
    adapter = TypeAdapter(kind)
    if models.decides_on_unknown_keys(kind):
        return adapter.validate_python(data, context=WRITTEN)
    return adapter.validate_python(data, context=WRITTEN, extra="forbid")


def _placed(root: Node, node: Node, path: Path, kind: Any) -> Node:
    """``node`` with the variables for which ``kind`` knows a key.

    What is there already came from a later source, or the variable would have been placed then.
    """
    prefix = f"{variable_name(path)}_" if path else ""
    for name, variable in (root.children or {}).items():
        if variable.origin.unplaced and name.startswith(prefix):
            key = find_key(name[len(prefix) :], kind, models.keys)
            if key is not None and _free(node, key):
                origin = variable.origin
                placed = type(origin)(origin.label, untyped=True)
                node = node.with_value(key, Node(variable.value, placed))
    return node


def _free(node: Node, key: Path) -> bool:
    """Whether nothing stands at ``key``, nor a value where a mapping should be on the way."""
    *_, (last, rest) = node.walk(key)
    return bool(rest) and (last.children is not None or last.value is None)


def _typed(node: Node, error: ValidationError) -> Node:
    """``node`` with text made a list or mapping where one is wanted and text was the only way."""
    for detail in error.errors(include_url=False):
        wanted = list if detail["type"] in _WANTS_LIST else dict
        if detail["type"] not in _WANTS_LIST | _WANTS_MAPPING:
            continue
        *_, (found, rest) = node.walk(_loc(detail))
        done = _loc(detail)[: len(detail["loc"]) - len(rest)]
        if found.origin.untyped and isinstance(found.value, str) and _only_words(done):
            value = _from_text(found.value, wanted)
            if value is not None:
                node = node.with_value(tuple(map(str, done)), _tree(value, found))
    return node


def _only_words(path: Sequence[str | int]) -> bool:
    return all(isinstance(key, str) for key in path)


def _from_text(text: str, wanted: type) -> object:
    """A list or mapping written as JSON, or a list with commas; ``None`` when it is neither."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, wanted):
        return value
    if wanted is list and not text.lstrip().startswith(("[", "{")):
        return [part.strip() for part in text.split(",") if part.strip()]
    return None


def _tree(value: Any, like: Node) -> Node:
    if isinstance(value, dict):
        return Node({key: _tree(item, like) for key, item in value.items()}, like.origin)
    if isinstance(value, list):
        return Node([_tree(item, like) for item in value], like.origin)
    return Node(value, like.origin)


def _error(error: ValidationError, node: Node, path: Path, kind: Any) -> ConfigError:
    found = [
        (at, _problem(detail, at, reached, path, kind))
        for detail in error.errors(include_url=False)
        for at, reached in [_place(node, _loc(detail))]
    ]
    found.sort(key=lambda pair: (pair[0].origin.label, pair[0].origin.line))
    return ConfigError(dict.fromkeys(problem for _, problem in found))


def _loc(detail: ErrorDetails) -> tuple[str | int, ...]:
    return detail["loc"]


def _place(node: Node, loc: Sequence[str | int]) -> tuple[Node, tuple[str | int, ...]]:
    """The deepest node on the way along ``loc``, and the way to it.

    The way may end early: a key that is missing, or names of validators and of union members.
    """
    *_, (at, rest) = node.walk(loc)
    return at, tuple(loc[: len(loc) - len(rest)])


def _problem(
    detail: ErrorDetails, at: Node, reached: tuple[str | int, ...], path: Path, kind: Any
) -> Problem:
    secret = any(is_secret(str(key)) for key in (*path, *reached))
    for key in reached[:-1] if detail["type"] in _UNKNOWN_KEY else reached:
        kind = models.below(kind, key)
    secret = secret or models.hides(kind)
    shown: str | None = MASK if secret else show(at.plain())
    message = _message(detail)
    match detail["type"]:
        case "missing" | "missing_argument":
            reached, shown = (*reached, detail["loc"][-1]), None
            message = "required, but not set"
        case problem if (
            problem in _UNKNOWN_KEY
        ):  # its value may be a secret whose name was misspelt
            message, shown = _unknown_key(str(reached[-1]), kind), None
        case problem if problem in _WANTS_MAPPING:
            message = "must be a mapping"
        case problem if problem in _WANTS_LIST:
            message = "must be a list"
        case _ if models.keys(kind) is not None:  # a rule about many values, some may be secret
            shown = None
    if secret and str(at.value):
        message = message.replace(str(at.value), MASK)
    return Problem(str(at.origin), join((*path, *reached)), escape(message), shown)


def _message(detail: ErrorDetails) -> str:
    message = detail["msg"]
    if detail["type"] in ("value_error", "assertion_error"):  # the model's own words
        for prefix in _PREFIXES:
            message = message.removeprefix(prefix)
        return message
    return message[:1].lower() + message[1:]


def _unknown_key(key: str, parent: Any) -> str:
    known = {word.lower(): word for word in models.keys(parent) or {}}
    close = get_close_matches(key.lower(), known, n=1)
    if close:
        return f"unknown key, did you mean {known[close[0]]}?"
    return f"unknown key; known are {', '.join(known.values())}" if known else "unknown key"


def show(value: Plain) -> str:
    """``value`` for a message: short, on one line, without secrets."""
    text = json.dumps(masked(value), ensure_ascii=False, default=str)
    text = mask_urls(text)
    return escape(text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}...")
