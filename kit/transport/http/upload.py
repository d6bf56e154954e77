"""Uploads: the parts of a ``multipart/form-data`` body, one after the other, as they come.

::

    async def upload(request: HttpRequest) -> dict[str, int]:
        sizes = {}
        async for part in parts(request):
            sizes[part.filename] = await part.save(folder / safe_name(part.filename))
        return sizes

    server.route("POST", "/upload", upload, body_bytes=1 << 30)

Nothing is kept in memory but what one chunk brings; the route's ``body_bytes`` caps the whole.

Source: RFC 7578, RFC 2046 section 5.1.
"""

from collections.abc import AsyncIterator, Iterator
from email.message import Message as HeaderParser
from pathlib import Path

from starlette.requests import Request

from kit.errors import BadRequest, Error

HEAD_BYTES = 16 << 10
"""The headers of one part."""
MOST_PARTS = 1_000
_BOUNDARY_CHARS = 70


class Part:
    """One part; it has to be read before the next one is asked for, or is passed over.

    Attributes:
        name: of the form's field.
        filename: as the client says; empty for plain fields. It may be any text: make no path of
            it without :func:`safe_name`.
        content_type: as the client says, ``text/plain`` when it says nothing.
    """

    def __init__(self, name: str, filename: str, content_type: str, reader: "_Reader") -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self._reader = reader

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content as it comes.

        Raises:
            BadRequest: MULTIPART; the body ends too early.
        """
        while (chunk := await self._reader.chunk()) is not None:
            if chunk:
                yield chunk

    async def read(self, limit: int = 1 << 20) -> bytes:
        """The whole content.

        Raises:
            Error: 413 ``BODY_TOO_LARGE``; there is more than ``limit`` bytes of it.
        """
        content = bytearray()
        async for chunk in self.chunks():
            content += chunk
            if len(content) > limit:
                text = f"part {self.name[:64]!r} has more than {limit} bytes"
                raise Error(413, "BODY_TOO_LARGE", text)
        return bytes(content)

    async def save(self, path: str | Path) -> int:
        """Write the content to a new file; gives its size in bytes.

        Raises:
            OSError: the file exists, or cannot be written.
        """
        size = 0
        with Path(path).open("xb") as file:  # noqa: ASYNC230  (chunks of 64 KiB into the cache)
            async for chunk in self.chunks():
                file.write(chunk)
                size += len(chunk)
        return size


async def parts(request: Request) -> AsyncIterator[Part]:
    """The parts of the request's body.

    Raises:
        BadRequest: MULTIPART; the body has another form.
        BodyTooLarge: the body has more bytes than the route takes.
    """
    reader = _Reader(request, _boundary(request.headers.get("content-type", "")))
    count = 0
    while (head := await reader.head()) is not None:
        count += 1
        if count > MOST_PARTS:
            raise _broken(f"more than {MOST_PARTS} parts")
        yield _part(head, reader)


def safe_name(filename: str) -> str:
    r"""The last element of ``filename`` without what could lead elsewhere.

    Raises:
        BadRequest: MULTIPART; nothing is left.

    >>> safe_name("C:\\dir\\a b.txt"), safe_name("../../etc/passwd")
    ('a b.txt', 'passwd')
    """
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in name if letter.isprintable()).strip().lstrip(".")
    if not name:
        raise _broken(f"{filename[:64]!r} is no file name")
    return name[:255]


class _Reader:
    """Cuts a body at its boundaries."""

    def __init__(self, request: Request, boundary: bytes) -> None:
        self._stream = request.stream()
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first boundary looks like the others
        self._inside = True
        self._preamble = True
        self._blank = False

    async def head(self) -> bytes | None:
        """The headers of the next part; ``None`` after the last one."""
        skipped = 0
        while self._inside and (piece := await self.chunk()) is not None:
            skipped += len(piece)
            if self._preamble and skipped > HEAD_BYTES:
                raise _broken("no boundary at the beginning")
        self._preamble = False
        while len(self._buffer) < 2:
            await self._more()
        if self._buffer[:2] == b"--":
            return None
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES:
                raise _broken(f"the headers of a part have more than {HEAD_BYTES} bytes")
            await self._more()
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 2]  # the blank line may be the beginning of the next boundary
        self._blank = True
        self._inside = True
        return head

    async def chunk(self) -> bytes | None:
        """The next piece of a part; ``None`` at its end."""
        if not self._inside:
            return None
        buffer, delimiter = self._buffer, self._delimiter
        start = 2 if self._blank else 0
        at = buffer.find(delimiter)
        if at >= 0:
            piece = bytes(buffer[start:at])
            del buffer[: at + len(delimiter)]
            self._inside = self._blank = False
            return piece or (b"" if self._preamble else None)
        keep = len(delimiter) - 1
        if len(buffer) - keep > start:
            piece = bytes(buffer[start : len(buffer) - keep])
            del buffer[: len(buffer) - keep]
            self._blank = False
            return piece
        await self._more()
        return b""

    async def _more(self) -> None:
        async for chunk in self._stream:
            if chunk:
                self._buffer += chunk
                return
        raise _broken("the body ends before its last boundary")


def _boundary(content_type: str) -> bytes:
    kind, parameters = _parsed(content_type)
    boundary = parameters.get("boundary", "")
    if kind != "multipart/form-data" or not 0 < len(boundary) <= _BOUNDARY_CHARS:
        raise _broken(f"Content-Type {content_type[:128]!r} is not multipart/form-data; boundary=…")
    return boundary.encode("latin-1", "replace")


def _part(head: bytes, reader: _Reader) -> Part:
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").lstrip("\r\n").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon:
            raise _broken(f"{line[:64]!r} is no header")
        headers[name.strip().lower()] = value.strip()
    kind, parameters = _parsed(headers.get("content-disposition", ""))
    if kind != "form-data" or "name" not in parameters:
        raise _broken("a part has no Content-Disposition: form-data; name=…")
    content_type = headers.get("content-type", "text/plain")
    return Part(parameters["name"], parameters.get("filename", ""), content_type, reader)


def _parsed(header: str) -> tuple[str, dict[str, str]]:
    """A header's value and its parameters."""
    parser = HeaderParser()
    parser["content-disposition"] = header
    pairs = list(_parameters(parser))
    return (pairs[0][0].lower(), dict(pairs[1:])) if pairs else ("", {})


def _parameters(parser: HeaderParser) -> Iterator[tuple[str, str]]:
    for name, value in parser.get_params(header="content-disposition") or ():
        yield name.lower(), value if isinstance(value, str) else value[2]


def _broken(text: str) -> BadRequest:
    return BadRequest("MULTIPART", text)
