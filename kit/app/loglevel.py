"""The log's level, changed while the process runs: by its configuration, or over the admin port."""

import json

from kit import log
from kit.config import Config, Value

DEFAULT_LEVEL = "info"

_log = log.get_logger()


def follow_level(config: Config, path: str = "log.level", *, default: str = DEFAULT_LEVEL) -> None:
    """Take the level from ``path`` each time that changes, inside ``config.watching()``.

    A level that does not exist is logged and not taken; a model that checks it when the
    configuration is scanned keeps it out altogether.

    Args:
        config: is watched by its owner.
        path: of the level's name.
        default: while there is no such key.
    """

    def changed(_: str, value: Value | None) -> None:
        change_level(default if value is None else value.as_str(), path)

    config.watch(path, changed)


def change_level(name: str, cause: str) -> None:
    """Set the level, and say so in the log.

    Args:
        name: of the level.
        cause: who wants it, for the log.

    Raises:
        ValueError: there is no such level.
    """
    before, after = log.get_level(), log.Level.parse(name)
    if before is after:
        return
    log.set_level(min(before, after))  # so that the line is seen
    _log.warning("log level %s, was %s: %s", after.name.lower(), before.name.lower(), cause)
    log.set_level(after)


def level_as_json() -> bytes:
    """``{"level":"info"}``: the form of go.uber.org/zap, AtomicLevel."""
    return json.dumps({"level": log.get_level().name.lower()}, separators=(",", ":")).encode()


def change_level_by_json(body: bytes, cause: str) -> None:
    """Set the level that ``body`` names in the form of :func:`level_as_json`.

    Raises:
        ValueError: it has another form, or there is no such level; the message says what to send.
    """
    try:
        name = json.loads(body)["level"]
    except (ValueError, LookupError, TypeError, RecursionError):
        name = None
    if not isinstance(name, str):
        raise ValueError('a level is wanted; send {"level":"debug"}')  # noqa: TRY004  as promised
    change_level(name, cause)
