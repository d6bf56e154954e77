"""How grave a line is.

Source: go-kratos/kratos log/level.go (v2 numbers).
"""

from enum import IntEnum


class Level(IntEnum):
    """Ordered by gravity; the name is what the line begins with."""

    DEBUG = -1
    INFO = 0
    WARN = 1
    ERROR = 2
    FATAL = 3

    @classmethod
    def parse(cls, text: str) -> "Level":
        """The level called ``text``, in any case.

        Raises:
            ValueError: there is no such level. (kratos reads it as INFO.)

        >>> Level.parse("warning").name
        'WARN'
        """
        name = text.strip().upper()
        try:
            return cls[_ALIASES.get(name, name)]
        except KeyError:
            raise ValueError(
                f"log level {text!r} is unknown; use debug, info, warn, error or fatal"
            ) from None

    @classmethod
    def of_record(cls, number: int) -> "Level":
        """The level of a record of the standard library.

        >>> Level.of_record(30).name, Level.of_record(25).name
        ('WARN', 'INFO')
        """
        return cls(min(max(number // 10 - 2, cls.DEBUG), cls.FATAL))

    @property
    def record_number(self) -> int:
        """The standard library's number.

        >>> [level.record_number for level in Level]
        [10, 20, 30, 40, 50]
        """
        return (self + 2) * 10


_ALIASES = {"WARNING": "WARN", "CRITICAL": "FATAL"}
