"""Lines reach their stream whole, in order, in time, and never take the process along."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from kit.log.writer import MAX_BUFFERED_CHARS, BufferedWriter, Writer

NEVER = 3600.0  # an interval that no test lives to see


def _run(program: str, **streams: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        timeout=30,
        text=True,
        **streams,  # type: ignore[call-overload]
    )


class Stream(io.StringIO):
    """Remembers how its text arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.flushed = threading.Event()

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)

    def flush(self) -> None:
        self.flushed.set()


@pytest.fixture
def stream() -> Iterator[Stream]:
    with Stream() as stream:
        yield stream


def test_a_line_leaves_in_one_piece_at_once(stream: Stream) -> None:
    """Two writes could be torn apart by another process on the same stderr."""
    Writer(stream).write("INFO msg=a\n")
    assert stream.pieces == ["INFO msg=a\n"]


def test_gathered_lines_leave_together_after_the_interval(stream: Stream) -> None:
    """One write for many lines, without anybody asking."""
    with closing(BufferedWriter(stream, interval=0.5)) as writer:
        writer.write("1\n")
        writer.write("2\n")
        assert stream.flushed.wait(30)
        assert "".join(stream.pieces) == "1\n2\n"
        stream.flushed.clear()
        writer.write("3\n")
        assert stream.flushed.wait(30)
    assert "".join(stream.pieces) == "1\n2\n3\n"


def test_an_urgent_line_takes_those_before_it_along(stream: Stream) -> None:
    """A warning is out when the call returns, and overtakes nothing."""
    with closing(BufferedWriter(stream, interval=NEVER)) as writer:
        writer.write("1\n")
        assert stream.pieces == []
        writer.write("2\n", now=True)
        assert stream.pieces == ["1\n2\n"]


def test_the_gathered_amount_is_bounded(stream: Stream) -> None:
    """Beyond the limit the caller writes: memory does not grow, nothing is dropped."""
    line = "x" * 1023 + "\n"
    with closing(BufferedWriter(stream, interval=NEVER)) as writer:
        for _ in range(MAX_BUFFERED_CHARS // 1024):
            writer.write(line)
        assert stream.pieces == []
        writer.write(line)
        assert [len(piece) for piece in stream.pieces] == [MAX_BUFFERED_CHARS + 1024]


def test_many_threads_keep_their_own_order_and_whole_lines() -> None:
    """Through a real pipe, with urgent lines, timer and limit all at work."""
    threads, count = 8, 2_000
    reader, pipe = os.pipe()
    received: list[bytes] = []

    def collect() -> None:
        while chunk := os.read(reader, 65536):
            received.append(chunk)

    collector = threading.Thread(target=collect)
    collector.start()
    with open(pipe, "w") as stream, closing(BufferedWriter(stream, interval=0.001)) as writer:

        def produce(name: int) -> None:
            for number in range(count):
                writer.write(f"{name} {number} {'.' * 40} end\n", now=number % 97 == 0)

        producers = [threading.Thread(target=produce, args=(name,)) for name in range(threads)]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
    collector.join()
    os.close(reader)
    lines = b"".join(received).decode().splitlines()
    assert len(lines) == threads * count
    assert all(line.endswith(f"{'.' * 40} end") for line in lines)
    for name in range(threads):
        numbers = [int(line.split()[1]) for line in lines if line.startswith(f"{name} ")]
        assert numbers == list(range(count))


def test_close_writes_the_rest_and_later_lines_go_at_once(stream: Stream) -> None:
    """Closing twice is harmless; what other exit handlers log is not lost."""
    writer = BufferedWriter(stream, interval=NEVER)
    writer.write("1\n")
    writer.close()
    writer.close()
    writer.write("2\n")
    assert stream.pieces == ["1\n", "2\n"]
    assert writer._flusher is not None
    assert not writer._flusher.is_alive()


PREPARED = "import kit.log; kit.log.configure(buffered=True); log = kit.log.get_logger();"


def test_gathered_lines_are_written_at_exit() -> None:
    """The last line before a clean end counts too."""
    done = _run(PREPARED + "log.info('bye')", stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "INFO msg=bye\n")


def test_gathered_lines_survive_a_crash() -> None:
    """An uncaught exception, which Python itself reports."""
    done = _run(PREPARED + "log.info('so far'); 1/0", stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert "INFO msg=so far\n" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_gathered_lines_of_other_threads_survive_the_exit() -> None:
    """A daemon thread may log while the interpreter is on its way out."""
    program = PREPARED + (
        "import atexit, threading\n"
        "atexit.register(lambda: log.info('handler'))\n"
        "t = threading.Thread(target=lambda: log.info('thread')); t.start(); t.join()"
    )
    done = _run(program, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "INFO msg=thread\nINFO msg=handler\n")


def test_a_fork_neither_doubles_nor_loses_lines() -> None:
    """The parent writes what was gathered before; the child's own lines are its own."""
    program = PREPARED + (
        "import os\n"
        "log.info('before')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    log.info('child'); kit.log.flush(); os._exit(0)\n"
        "os.waitpid(child, 0); log.info('after')"
    )
    done = _run(program, stderr=subprocess.PIPE)
    assert done.returncode == 0
    assert sorted(done.stderr.splitlines()) == [
        "INFO msg=after", "INFO msg=before", "INFO msg=child"
    ]  # fmt: skip


@pytest.mark.parametrize("buffered", [False, True])
def test_a_process_outlives_a_closed_stderr(buffered: bool) -> None:
    """Started with ``2>&-``: there is no stream to write to."""
    program = (
        f"import kit.log; kit.log.configure(buffered={buffered}); log = kit.log.get_logger()\n"
    )
    program += "log.info('x'); log.error('y'); kit.log.plain('z'); print('alive')"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program],
        timeout=30, text=True, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "alive\n")


@pytest.mark.parametrize("buffered", [False, True])
def test_a_process_outlives_the_reader_of_its_log(buffered: bool) -> None:
    """The other end of the pipe is gone: a write fails, the work goes on."""
    reader, pipe = os.pipe()
    os.close(reader)
    program = (
        f"import kit.log; kit.log.configure(buffered={buffered}); log = kit.log.get_logger()\n"
    )
    program += "[log.error('x') for _ in range(100)]; print('alive')"
    done = _run(program, stdout=subprocess.PIPE, stderr=pipe)
    os.close(pipe)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_a_stream_closed_behind_our_back_is_counted(stream: Stream) -> None:
    """Nothing is raised; who wants to know can see how often it happened."""
    text = io.TextIOWrapper(io.BytesIO())
    writer = Writer(text)
    writer.write("1\n")
    text.close()
    writer.write("2\n")
    assert writer.lost_writes == 1


def test_a_narrow_stream_gets_escapes_instead_of_nothing() -> None:
    """A terminal that only takes ASCII still shows the line."""
    raw = io.BytesIO()
    writer = Writer(io.TextIOWrapper(raw, encoding="ascii"))
    writer.write("INFO user=Jörg 世\n")
    assert raw.getvalue() == b"INFO user=J\\xf6rg \\u4e16\n"


def test_stderr_is_looked_up_for_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who redirects stderr later gets the log too."""
    writer = Writer()
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    writer.write("1\n")
    monkeypatch.setattr(sys, "stderr", second)
    writer.write("2\n")
    assert (first.getvalue(), second.getvalue()) == ("1\n", "2\n")
