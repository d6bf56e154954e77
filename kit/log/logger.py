"""The logger that programs hold: fields bound to it, levels as methods.

It is a structlog logger (``bind``, ``unbind``, ``new``, processors) with two liberties, both for
the one line a transaction costs. The level is looked up in the shared output at each call, so that
it can change while the process runs; and what every line has (fields, context, trace) is put
together in one place instead of by a chain of processors. Processors of the user run after that,
before secrets are masked.

A log line never raises: what cannot be formatted is said in a line of its own.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from structlog import BoundLoggerBase, DropEvent

from kit.log.level import Level
from kit.log.output import Event, Output
from kit.log.text import cut

_context: ContextVar[Mapping[str, object]] = ContextVar("kit_log_context")
# Members of an enum are looked up slowly, and these at every call.
_DEBUG, _INFO, _WARN, _ERROR = Level.DEBUG, Level.INFO, Level.WARN, Level.ERROR
_NO_FIELDS: Mapping[str, object] = {}


@contextmanager
def context(**fields: object) -> Iterator[None]:
    """Add ``fields`` to every line of this task inside the block, whichever logger writes it.

    Tasks started inside inherit them. Names that are no identifiers go as ``**{"trace.id": ...}``.
    """
    token = _context.set({**_context.get(_NO_FIELDS), **fields})
    try:
        yield
    finally:
        _context.reset(token)


class Logger(BoundLoggerBase):
    """Writes lines; made by :func:`kit.log.get_logger`.

    Each method takes a message with ``%`` places for the arguments that follow, and fields as
    keywords. Without a message the line has only fields. ``exc_info=`` (an exception, or ``True``
    for the one being handled) puts the stack below the line.
    """

    _logger: Output

    def debug(self, message: str | None = None, /, *args: object, **fields: Any) -> None:
        """For who looks for a fault."""
        if self._logger.level <= _DEBUG:
            self._log(_DEBUG, message, args, fields)

    def info(self, message: str | None = None, /, *args: object, **fields: Any) -> None:
        """What happened, once each."""
        if self._logger.level <= _INFO:
            self._log(_INFO, message, args, fields)

    def warning(self, message: str | None = None, /, *args: object, **fields: Any) -> None:
        """Something is not as it should be; the program goes on by itself."""
        if self._logger.level <= _WARN:
            self._log(_WARN, message, args, fields)

    def error(self, message: str | None = None, /, *args: object, **fields: Any) -> None:
        """Something failed."""
        if self._logger.level <= _ERROR:
            self._log(_ERROR, message, args, fields)

    def exception(self, message: str | None = None, /, *args: object, **fields: Any) -> None:
        """:meth:`error` with the stack of the exception being handled."""
        if self._logger.level <= _ERROR:
            self._log(_ERROR, message, args, {"exc_info": True, **fields})

    def fatal(self, message: str | None = None, /, *args: object, **fields: Any) -> None:
        """The program cannot go on. Ending it is up to the caller (kratos exits here)."""
        self._log(Level.FATAL, message, args, fields)

    warn = warning  # kratos' name
    critical = fatal  # the standard library's

    def log(
        self, level: Level, message: str | None = None, /, *args: object, **fields: Any
    ) -> None:
        """A line of a level that is known only now."""
        if self._logger.level <= level:
            self._log(level, message, args, fields)

    def enabled(self, level: Level) -> bool:
        """Whether a line of ``level`` would be written: for fields that are dear to make."""
        return self._logger.level <= level

    def _log(
        self, level: Level, message: str | None, args: tuple[object, ...], fields: dict[str, Any]
    ) -> None:
        output = self._logger
        try:
            event: Event = {}
            if output.timestamps:
                event["ts"] = output.timestamp()
            if output.caller:
                event["caller"] = fields.pop("caller", None) or _caller()
            if output.fields:
                event.update(output.fields)
            event.update(self._context)
            if (inherited := _context.get(_NO_FIELDS)) is not _NO_FIELDS:
                event.update(inherited)
            if (telemetry := sys.modules.get("opentelemetry.trace")) is not None:
                _add_trace(telemetry, event)
            if fields:
                event.update(fields)
                if event.get("exc_info") is True:
                    event["exc_info"] = sys.exc_info()
            if message is not None:
                event["msg"] = message % args if args else message
            for processor in self._processors:
                event = processor(output, level.name.lower(), event)  # type: ignore[assignment]
            output.write(level, event)
        except DropEvent:
            pass
        except Exception as error:  # noqa: BLE001  a line that cannot be made must not stop the work
            trouble = f"{type(error).__name__}: {error}"
            output.write(
                Level.ERROR, {"msg": f"a log line could not be made of {message!r}: {cut(trouble)}"}
            )


def _add_trace(telemetry: Any, event: Event) -> None:
    """Add the ids of the current span. Where OpenTelemetry was never imported there is none."""
    span = telemetry.get_current_span()
    if span is telemetry.INVALID_SPAN:
        return
    ids = span.get_span_context()
    if ids.is_valid:
        event["trace.id"] = format(ids.trace_id, "032x")
        event["span.id"] = format(ids.span_id, "016x")


def _caller() -> str:
    """``folder/file.py:line`` of the nearest frame that is not logging itself."""
    frame = sys._getframe(1)  # noqa: SLF001  what inspect.currentframe calls, without its cost
    while frame.f_globals.get("__name__", "").startswith(("kit.log.", "structlog")):
        if frame.f_back is None:
            break
        frame = frame.f_back
    path = frame.f_code.co_filename.replace("\\", "/")
    return f"{'/'.join(path.rsplit('/', 2)[-2:])}:{frame.f_lineno}"
