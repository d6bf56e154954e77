"""What a service may be called, and what it is called in protos and Python."""

import keyword
import re
from dataclasses import dataclass

from kit.cli.protoc.code import snake
from kit.cli.usage import WrongUsage

LONGEST = 30
"""Characters: longer names make lines of generated code too long."""

RESERVED = frozenset({"api", "errors", "google"})
"""Packages of protos that a service of the same name would hide."""

_LEGAL = re.compile(r"[A-Za-z](?:[-_]?[A-Za-z0-9])*")


@dataclass(frozen=True, slots=True)
class Names:
    """One service in its languages.

    Attributes:
        name: of the service, as given: in the registry, in logs.
        package: in the path of the API and of Python.
        service: in the proto.
    """

    name: str
    package: str
    service: str

    @property
    def cls(self) -> str:
        """The class that serves it; ``kit proto server`` would choose the same."""
        return f"{self._stem}Service"

    @property
    def module(self) -> str:
        """Where that class is."""
        return snake(self._stem)

    @property
    def snake(self) -> str:
        """The service in the names of generated functions."""
        return snake(self.service)

    @property
    def env(self) -> str:
        """What variables of the environment begin with."""
        return f"{self.package.upper()}_"

    @property
    def _stem(self) -> str:
        return self.service.removesuffix("Service") or self.service


def names_of(name: str) -> Names:
    """The names of a service.

    >>> names_of("order-service").package, names_of("order-service").service
    ('order_service', 'OrderService')

    Raises:
        WrongUsage: no package can have this name; the message says why, and what could be written.
    """
    if not name.isascii():
        raise WrongUsage(
            f"{name!r} has letters beyond a to z, which peers in other languages cannot import"
        )
    if not _LEGAL.fullmatch(name):
        mended = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-0123456789")
        raise WrongUsage(
            f"{name!r} is no name: it begins with a letter, then come letters, digits and single "
            f"dashes or underscores{f', such as {mended}' if mended else ''}"
        )
    if len(name) > LONGEST:
        raise WrongUsage(f"{name!r} has more than {LONGEST} characters")
    package = name.replace("-", "_").lower()
    if keyword.iskeyword(package):
        raise WrongUsage(f"{name!r} is a word of Python and cannot be imported; try {name}-service")
    if package in RESERVED:
        raise WrongUsage(f"{name!r} would hide the protos of that name; try {name}-service")
    parts = re.split(r"[-_]", name)
    return Names(name, package, "".join(part[:1].upper() + part[1:] for part in parts))
