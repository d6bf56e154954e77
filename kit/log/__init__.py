"""Log lines as kratos writes them, v2 or v3, or as JSON.

::

    log = kit.log.get_logger(gid=gid)
    log.info("branch %s succeeded", branch_id, op="action")
    -> INFO gid=g1 op=action msg=branch 01 succeeded

Until :func:`configure` is called: text to stderr, INFO and above, no fields of its own. Then, at
any time, for loggers that exist already too: another level, form, stream; time, caller, fields at
the beginning of each line. Ids of the current OpenTelemetry span come by themselves. Values of
keys such as ``password`` or ``token`` are shown as ``***``.

Source: go-kratos/kratos log/ (v2 line form); structlog underneath.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import TextIO

import structlog
from structlog.typing import Processor

from kit.compat import Compat, chosen
from kit.log.level import Level
from kit.log.logger import Logger, context
from kit.log.mask import MASK, is_secret, mask_urls, masked
from kit.log.output import Form, Output
from kit.log.records import RecordHandler
from kit.log.text import escape, go_text
from kit.log.writer import BufferedWriter, Writer

_output = Output()
_processors: list[Processor] = []
_records = RecordHandler(_output)


def get_logger(**fields: object) -> Logger:
    """A logger whose lines begin with ``fields``; cheap enough to make one a transaction."""
    return Logger(_output, _processors, fields)


def plain(message: str, /, *args: object) -> None:
    """Write a business line as Go's own ``log.Printf`` does, whatever the level.

    ``plain("transfer out %d cents from %d", 30, 1)`` is
    ``2022/03/30 09:35:36 transfer out 30 cents from 1``, in local time. With form JSON it is the
    message of an INFO line.

    Raises:
        TypeError: the arguments do not fit the places in ``message``.
    """
    _output.write_plain(message % args if args else message)


def configure(
    *,
    level: Level | str = Level.INFO,
    form: Form | str | None = None,
    fields: Mapping[str, object] | None = None,
    timestamps: bool | None = None,
    caller: bool = False,
    buffered: bool = False,
    stream: TextIO | None = None,
    masks: Iterable[str] = (),
    processors: Iterable[Processor] = (),
    records: bool = True,
) -> None:
    """Set how all loggers of the process write, from now on; what is not given is the default.

    Args:
        level: lines below it are dropped, at 0.1 us each.
        form: ``text``, ``slog`` or ``json``; by default that of the kratos that the process
            follows, see :mod:`kit.compat`: ``text`` for v2, ``slog`` for v3.
        fields: at the beginning of each line, such as ``{"service.name": "trans"}``.
        timestamps: whether lines have ``ts``; by default text has not, the others have.
        caller: whether lines have ``caller``, as ``folder/file.py:line``.
        buffered: gather lines for up to 50 ms; warnings and errors go at once, with all before
            them. See :class:`~kit.log.writer.BufferedWriter`.
        stream: ``None`` is whatever ``sys.stderr`` is.
        masks: keys whose values are secret beside those that look it, in any case.
        processors: structlog processors that see each event first; ``DropEvent`` drops it.
        records: take the standard library's ``logging`` along, and plain structlog loggers.

    Raises:
        ValueError: an unknown level or form.
    """
    new = Output(
        level=Level.parse(level) if isinstance(level, str) else level,
        form=_form(form),
        fields=fields,
        timestamps=timestamps,
        caller=caller,
        masks=masks,
        writer=BufferedWriter(stream) if buffered else Writer(stream),
    )
    old = _output.writer
    vars(_output).update(vars(new))  # the object stays: every logger holds it
    _processors[:] = processors
    old.close()
    root = logging.getLogger()
    root.removeHandler(_records)
    if records:
        root.addHandler(_records)
        root.setLevel(new.level.record_number)
        structlog.configure(
            processors=_processors,
            wrapper_class=Logger,
            context_class=dict,
            logger_factory=lambda *_: _output,
            cache_logger_on_first_use=True,
        )


def _form(form: str | None) -> Form:
    if form is None:
        return Form.TEXT if chosen() is Compat.V2 else Form.SLOG
    try:
        return Form(form)
    except ValueError:
        raise ValueError(f"log form {form!r} is unknown; use text, slog or json") from None


def get_level() -> Level:
    """The level below which lines are dropped."""
    return _output.level


def set_level(level: Level | str) -> None:
    """Change the level at once, for loggers that exist already too.

    Raises:
        ValueError: an unknown level.
    """
    _output.level = Level.parse(level) if isinstance(level, str) else level
    root = logging.getLogger()
    if _records in root.handlers:
        root.setLevel(_output.level.record_number)


def flush() -> None:
    """Return when every line so far has left the process; before ``os._exit``, after a crash."""
    _output.writer.flush()


__all__ = [
    "MASK",
    "Form",
    "Level",
    "Logger",
    "configure",
    "context",
    "escape",
    "flush",
    "get_level",
    "get_logger",
    "go_text",
    "is_secret",
    "mask_urls",
    "masked",
    "plain",
    "set_level",
]
