"""Where lines go: a stream that may be closed, slow or broken, and never takes the process along.

A line reaches its stream in one piece and in the order of the calls. :class:`Writer` passes each
one on at once. :class:`BufferedWriter` gathers them: a write to stderr costs more than the line
itself, so lines wait up to 50 ms for company. Lines that somebody is waiting for (warnings, errors)
take those before them along at once, so nothing ever overtakes.

Two locks keep this true. ``_lines_lock`` is held to append or to take the gathered lines, never
while writing. ``_stream_lock`` is held from taking the lines until they are written, so who takes
later also writes later. Both can be entered twice by one thread, because a signal handler or a
finalizer that logs may interrupt a line that is just being written.
"""

import atexit
import os
import sys
import threading
import weakref
from typing import TextIO

FLUSH_INTERVAL = 0.05
"""Seconds a line waits for company."""

MAX_BUFFERED_CHARS = 256 * 1024
"""Gathered lines beyond this are written by the caller: a slow stream slows the program down,
and memory stays bounded."""


class Writer:
    """Writes each line at once.

    Args:
        stream: ``None`` is what ``sys.stderr`` is at the time of the line.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.lost_writes = 0
        self._stream = stream
        self._stream_lock = threading.RLock()

    def write(self, lines: str, *, now: bool = True) -> None:
        """Pass on one or more whole lines, each with its line end.

        Args:
            lines: the text.
            now: whether somebody is waiting for it; matters to a writer that gathers.
        """
        with self._stream_lock:
            self._put(lines)

    def flush(self) -> None:
        """Return when everything written so far has left this process."""

    def close(self) -> None:
        """Flush; a line that comes later is written at once. The stream stays open."""

    def _put(self, text: str) -> None:
        stream = sys.stderr if self._stream is None else self._stream
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:  # a stream with a narrow encoding, such as ASCII
                stream.write(text.encode("ascii", "backslashreplace").decode())
            stream.flush()
        except (OSError, ValueError, RuntimeError, AttributeError):
            # A full disk or a reader that left (OSError), a closed stream (ValueError), a signal
            # handler inside a write (RuntimeError), no stderr at all (AttributeError): a log that
            # cannot be written is no reason to fail.
            self.lost_writes += 1


class BufferedWriter(Writer):
    """Gathers lines for up to :data:`FLUSH_INTERVAL`; close it, or leave that to the exit.

    Only what kills the process without a chance to run (SIGKILL, ``os._exit``) can take gathered
    lines along, and never a warning or an error.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = FLUSH_INTERVAL) -> None:
        super().__init__(stream)
        self._interval = interval
        self._lines: list[str] = []
        self._chars = 0
        self._lines_lock = threading.RLock()
        self._first_line = threading.Event()
        self._closed = threading.Event()
        self._flusher: threading.Thread | None = None
        atexit.register(self.close)
        reset = weakref.WeakMethod(self._reset_in_child)
        os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def write(self, lines: str, *, now: bool = False) -> None:
        """Gather ``lines``; write them and all before them when somebody is waiting (``now``)."""
        with self._lines_lock:
            self._lines.append(lines)
            self._chars += len(lines)
            first = len(self._lines) == 1
            if self._flusher is None:
                self._start_flusher()
        if now or self._chars > MAX_BUFFERED_CHARS or self._closed.is_set():
            self.flush()
        elif first:
            self._first_line.set()

    def flush(self) -> None:
        """Write what was gathered."""
        with self._stream_lock:
            with self._lines_lock:
                lines, self._lines, self._chars = self._lines, [], 0
            if lines:
                self._put("".join(lines))

    def close(self) -> None:
        """Write what was gathered and stop gathering; may be called twice."""
        self._closed.set()
        self._first_line.set()
        self.flush()
        if (flusher := self._flusher) is not None and flusher is not threading.current_thread():
            flusher.join(
                timeout=1.0
            )  # it is past its last flush, or stuck in a stream we cannot help
        atexit.unregister(self.close)

    def _start_flusher(self) -> None:
        flusher = threading.Thread(target=self._run, name="kit-log-flush", daemon=True)
        try:
            flusher.start()
        except RuntimeError:  # the interpreter is on its way out: nobody will flush later
            self._closed.set()
        else:
            self._flusher = flusher

    def _run(self) -> None:
        while not self._closed.is_set():
            self._first_line.wait()
            self._first_line.clear()
            self._closed.wait(self._interval)
            self.flush()

    def _reset_in_child(self) -> None:
        """A fork copies gathered lines, which the parent writes, and locks nobody will release."""
        self._stream_lock = threading.RLock()
        self._lines_lock = threading.RLock()
        self._lines, self._chars, self._flusher = [], 0, None
        self._first_line, self._closed = threading.Event(), threading.Event()
