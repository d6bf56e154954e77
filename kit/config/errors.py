"""What is wrong with a configuration: all of it at once, each with its place."""

from collections.abc import Iterable
from dataclasses import dataclass

from kit.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        origin: where, such as ``configs/config.yaml:2`` or ``env TRANS_DEBUG``; empty when it is
            nowhere.
        path: the dotted path of the value; empty when the whole item is meant.
        message: what is wrong and what would be right.
        value: what was found, as text for people (masked when the path names a secret); ``None``
            when nothing was.
    """

    origin: str
    path: str
    message: str
    value: str | None = None

    def __str__(self) -> str:
        """One line.

        >>> str(Problem("config.yaml:2", "server.http.addr", "input should be a valid string", "5"))
        'config.yaml:2: server.http.addr: input should be a valid string (got 5)'
        """
        got = "" if self.value is None else f" (got {self.value})"
        return ": ".join(part for part in (self.origin, self.path, self.message) if part) + got


class ConfigError(BadRequest):
    """The configuration cannot be used: 400 CONFIG. Its text is one line a problem.

    Attributes:
        problems: everything that is wrong, in the order of the sources.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("CONFIG", "\n".join(map(str, self.problems)))

    @classmethod
    def of(cls, message: str, origin: str = "", path: str = "") -> "ConfigError":
        """An error with a single problem."""
        return cls([Problem(origin, path, message)])

    def __str__(self) -> str:
        return self.message
