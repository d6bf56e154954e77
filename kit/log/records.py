"""Records of the standard library's ``logging`` in the kit's form: grpc, asyncio, watchfiles."""

import logging

from kit.log.level import Level
from kit.log.logger import Logger
from kit.log.output import Output


class RecordHandler(logging.Handler):
    """Passes records on to the kit's output, with the record's name as the field ``logger``.

    (structlog's own ``ProcessorFormatter`` costs four times a line of ours.)
    """

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output
        self._logger = Logger(output, (), {})

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record``."""
        fields: dict[str, object] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = record.exc_info[1]
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError) as error:  # arguments that do not fit the places
            message = f"{record.msg} ({type(error).__name__}: {error})"
        if self._output.caller:
            fields["caller"] = f"{record.module}.py:{record.lineno}"
        self._logger.log(Level.of_record(record.levelno), message, **fields)
