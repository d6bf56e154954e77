"""Log files: several outputs, and files that make way when they are full."""

import gzip
import io
import sys
from pathlib import Path

import pytest

from kit.log.files import RotatingFile, Rotation, Tee, open_outputs


def test_a_full_file_makes_way_and_no_line_is_cut(tmp_path: Path) -> None:
    """Each line is whole in one of the files."""
    file = RotatingFile(tmp_path / "kit.log", Rotation(max_size=1))
    line = "x" * 299_999 + "\n"
    for _ in range(5):
        file.write(line)
    file.close()
    texts = [path.read_text() for path in sorted(tmp_path.iterdir())]
    assert len(texts) == 2
    assert sorted(text.count(line) for text in texts) == [2, 3]
    assert "".join(texts) == line * 5


def test_old_files_are_packed_and_the_oldest_deleted(tmp_path: Path) -> None:
    """As many as asked for stay."""
    rotation = Rotation(max_size=1, max_backups=1, compress=True)
    file = RotatingFile(tmp_path / "kit.log", rotation)
    for number in range(4):
        file.write(str(number) * 900_000 + "\n")
    file.close()
    [packed] = tmp_path.glob("*.gz")
    assert gzip.decompress(packed.read_bytes()).startswith(b"222")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """A restart keeps what the last run wrote."""
    for line in ("one\n", "two\n"):
        file = RotatingFile(tmp_path / "kit.log")
        file.write(line)
        file.close()
    assert (tmp_path / "kit.log").read_text() == "one\ntwo\n"


def test_outputs_are_written_to_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is closed does not keep the line from the others."""
    stream = open_outputs(f"stdout, {tmp_path / 'a.log'}")
    assert stream is not None
    stream.write("line\n")
    assert capsys.readouterr().out == "line\n"
    assert (tmp_path / "a.log").read_text() == "line\n"
    closed, heard = io.StringIO(), io.StringIO()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        Tee([closed, heard]).write("line\n")
    assert heard.getvalue() == "line\n"


@pytest.mark.parametrize("names", ["", "stderr", " stderr ,"])
def test_stderr_alone_is_left_to_the_logger(names: str) -> None:
    """It follows whatever sys.stderr is."""
    assert open_outputs(names) is None


def test_stdout_alone_is_that_stream() -> None:
    """Without a layer between."""
    assert open_outputs("stdout") is sys.stdout


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    """Not a log that is silently empty."""
    with pytest.raises(OSError, match="No such file"):
        open_outputs(str(tmp_path / "missing" / "kit.log"))
