"""Path templates of routes and of ``google.api.http`` rules.

``/v1/{name}`` binds one segment, ``/v1/{name=shelves/*/books/**}`` several: ``*`` stands for one
segment, ``**`` for any number. Fields of messages are named with dots. A template is matched
against the decoded path.

Source: google/api/http.proto; go-kratos/kratos v3 cmd/protoc-gen-go-http/http.go, replacePath.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

_VARIABLE = re.compile(r"\{([A-Za-z_][\w.]*)\s*(?:=\s*([^{}]*))?\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        text: as it was written.
        pattern: matches a whole path; group ``n`` is the variable ``names[n - 1]``.
        names: of the variables, with dots, in their order.
        literal: the only path that matches, when there are no variables.
        segments: how many a path has that matches; ``None`` when that varies.
    """

    text: str
    pattern: re.Pattern[str]
    names: tuple[str, ...]
    literal: str | None
    segments: int | None

    @property
    def slash(self) -> bool:
        """Whether it ends with a slash."""
        return self.text.endswith("/")

    def build(self, value: Callable[[str], str]) -> str:
        """A path, with ``value`` of each name in the variables' places, percent-encoded.

        A variable of one segment has its slashes encoded, too.
        """

        def fill(variable: re.Match[str]) -> str:
            several = variable[2] is not None and variable[2] != "*"
            return quote(value(variable[1]), safe="/-_.~" if several else "-_.~")

        return _VARIABLE.sub(fill, self.text)

    def build_names(self) -> str:
        """The template with plain variables, as OpenAPI writes it."""
        return _VARIABLE.sub(lambda variable: f"{{{variable[1]}}}", self.text)


def parse_template(text: str) -> Template:
    """Read a template.

    Raises:
        ValueError: it does not begin with a slash, or has braces out of place.

    >>> found = parse_template("/v1/{name=shelves/*}/books/{book.id}:read")
    >>> found.pattern.fullmatch("/v1/shelves/a/books/7:read").groups()
    ('shelves/a', '7')
    >>> found.names
    ('name', 'book.id')
    """
    if not text.startswith("/"):
        raise ValueError(f"path {text!r} does not begin with a slash")
    expression, names, position, open_end = [], [], 0, False
    for variable in _VARIABLE.finditer(text):
        expression.append(_literal(text[position : variable.start()], text))
        inner = "*" if variable[2] is None else variable[2].strip()
        open_end = open_end or "**" in inner
        expression.append(f"({_inner(inner)})")
        names.append(variable[1])
        position = variable.end()
    expression.append(_literal(text[position:], text))
    plain = _VARIABLE.sub(lambda found: found[2] or "*", text)
    return Template(
        text,
        re.compile("".join(expression)),
        tuple(names),
        None if names else text,
        None if open_end else plain.count("/"),
    )


def _literal(part: str, whole: str) -> str:
    if "{" in part or "}" in part:
        raise ValueError(f"path {whole!r}: braces are for variables such as {{name}}")
    return re.escape(part)


def _inner(pattern: str) -> str:
    parts = re.split(r"(\*\*|\*)", pattern)
    return "".join({"**": ".*", "*": "[^/]+"}.get(part, re.escape(part)) for part in parts)


def clean(path: str) -> str:
    """``path`` without empty, ``.`` and ``..`` segments; a slash at its end stays.

    Source: gorilla/mux mux.go, cleanPath; path.Clean of Go.

    >>> clean("//a/./b/../c//"), clean("/.."), clean("")
    ('/a/c/', '/', '/')
    """
    if "//" not in path and "/." not in path and path[:1] == "/":
        return path
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment and segment != ".":
            kept.append(segment)
    joined = "/" + "/".join(kept)
    return joined + "/" if path.endswith("/") and joined != "/" else joined


def join(prefix: str, path: str) -> str:
    """A prefix and a relative path as one, cleaned; a slash at the end is lost, as in kratos.

    >>> join("/v1/", "/users/"), join("", "/")
    ('/v1/users', '/')
    """
    return clean(f"/{prefix}/{path}").rstrip("/") or "/"
