"""The last part of a line's way: which form it takes and where it goes.

Three forms. Text is kratos' ``LEVEL k1=v1 k2=v2 msg=...``, for people, without any quoting; slog is
``time=... level=INFO msg="..." k1=v1``, quoted where it has to be, as kratos v3 writes it; JSON is
one object a line, for machines. All are one line whatever is in them, except that text puts a stack
on lines of its own below, indented, so that none of them can be taken for a line.

Source: go-kratos/kratos log/std.go of v2; the Go package log/slog, TextHandler.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from enum import StrEnum
from typing import Any, TypeAlias

from kit.log.level import Level
from kit.log.mask import MASK, is_secret, masked
from kit.log.text import MAX_LINE_CHARS, cut, escape, go_text, quoted
from kit.log.writer import Writer

Event: TypeAlias = MutableMapping[str, Any]
STACK_INDENT = "    "

# Enum members and their names are looked up slowly; these are asked for each line.
_WARN = Level.WARN
_LOWEST = int(min(Level))
_WORDS = tuple(level.name for level in Level)
_SLOG_WORDS = ("DEBUG", "INFO", "WARN", "ERROR", "ERROR+4")
_NESTED = (dict, list, tuple)


class Form(StrEnum):
    """What a line looks like."""

    TEXT = "text"
    SLOG = "slog"
    JSON = "json"


class Output:
    """Renders events and writes them.

    Every logger of the process shares one, and its settings may change at any time.

    Attributes:
        level: lines below it are not even made.
        fields: at the beginning of each line, such as ``service.name``.
        timestamps: whether each line has ``ts``.
        caller: whether each line has ``caller``.
        writer: where lines go.
    """

    def __init__(
        self,
        *,
        level: Level = Level.INFO,
        form: Form = Form.TEXT,
        fields: Mapping[str, object] | None = None,
        timestamps: bool | None = None,
        caller: bool = False,
        masks: Iterable[str] = (),
        writer: Writer | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.level = level
        self.fields = dict(fields or {})
        self.form = form
        self.timestamps = form is not Form.TEXT if timestamps is None else timestamps
        self.caller = caller
        self.writer = writer or Writer()
        self._masks = frozenset(name.lower() for name in masks)
        self._now = now
        self._second = -1
        self._go_time = self._iso_time = self._zone = ""

    def timestamp(self) -> str:
        """Now in RFC 3339, local zone; to the second in text as in kratos, else with millis."""
        now = self._now()
        self._tick(int(now))
        millis = f".{int(now * 1000) % 1000:03d}" if self.form is not Form.TEXT else ""
        return f"{self._iso_time}{millis}{self._zone}"

    def write(self, level: Level, event: Event) -> None:
        """Render ``event`` and write it; ``exc_info`` in it becomes the stack."""
        exc_info = event.pop("exc_info", None)
        self._mask(event)
        match self.form:
            case Form.TEXT:
                line = self._text(level, event, _stack(exc_info))
            case Form.SLOG:
                line = self._slog(level, event, _stack(exc_info))
            case Form.JSON:
                line = self._json(level, event, _stack(exc_info))
        self.writer.write(line, now=level >= _WARN)

    def write_plain(self, message: str) -> None:
        """Write ``message`` as Go's own ``log`` package does: local time, then the text.

        In the other forms it is the message of an INFO line, so that the stream stays readable by
        machines.
        """
        message = message.removesuffix("\n")
        if self.form is not Form.TEXT:
            self.write(Level.INFO, {"ts": self.timestamp(), **self.fields, "msg": message})
            return
        self._tick(int(self._now()))
        self.writer.write(f"{self._go_time} {escape(cut(message))}\n", now=False)

    def _tick(self, second: int) -> None:
        """Make the texts of this second; most lines find them made."""
        if second != self._second:
            local = time.localtime(second)
            self._go_time = time.strftime("%Y/%m/%d %H:%M:%S", local)
            self._iso_time = time.strftime("%Y-%m-%dT%H:%M:%S", local)
            zone = time.strftime("%z", local)
            self._zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
            self._second = second

    def _mask(self, event: Event) -> None:
        extra = self._masks
        for key, value in event.items():
            if is_secret(key) or (extra and key.lower() in extra):
                event[key] = MASK
            elif isinstance(value, _NESTED):
                event[key] = masked(value, extra)

    def _text(self, level: Level, event: Event, stack: str) -> str:
        pairs = " ".join(
            [f"{key}={v if type(v) is str else go_text(v)}" for key, v in event.items()]
        )
        line = f"{_WORDS[level - _LOWEST]} {pairs}"
        if len(line) > MAX_LINE_CHARS:
            line = cut(line)
        if not line.isprintable():
            line = escape(line)
        if not stack:
            return f"{line}\n"
        below = "".join(f"{STACK_INDENT}{escape(part)}\n" for part in stack.splitlines())
        return f"{line}\n{below}"

    def _slog(self, level: Level, event: Event, stack: str) -> str:
        first = {"time": event.pop("ts", None), "level": _SLOG_WORDS[level - _LOWEST]}
        first["msg"] = event.pop("msg", "")
        pairs = {key: value for key, value in first.items() if value is not None}
        pairs.update(event)
        if stack:
            pairs["stack"] = stack
        line = " ".join(
            [f"{quoted(key)}={quoted(cut(go_text(value)))}" for key, value in pairs.items()]
        )
        return f"{cut(line)}\n"

    def _json(self, level: Level, event: Event, stack: str) -> str:
        record = {"level": level.name, **event}
        if stack:
            record["stack"] = stack
        try:
            line = _encode(record)
        except (TypeError, ValueError):  # a key that is no text, a NaN, a circle
            line = _encode({key: go_text(value) for key, value in record.items()})
        if len(line) > MAX_LINE_CHARS:
            limit = MAX_LINE_CHARS // max(len(record), 1)
            line = _encode({key: cut(go_text(value), limit) for key, value in record.items()})
        # What the encoder leaves alone (U+2028 and its like) stands inside strings: \\u2028 there.
        return f"{line if line.isprintable() else _json_escape(line)}\n"


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=go_text
).encode


def _json_escape(line: str) -> str:
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)


def _stack(exc_info: object) -> str:
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if not isinstance(error, BaseException):
        return ""
    return cut("".join(traceback.format_exception(error)).rstrip("\n"))
