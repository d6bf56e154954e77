"""What ``kit doctor`` finds: one sentence a check, and in a failure the way out."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: ``python``, ``packages``, ``config``, ``port``, ``etcd``, ``coordinator``,
            ``registration``, ``clock``, ``certificate`` or ``target``.
        subject: what was looked at, such as an address or a file.
        state: how it ended.
        text: one sentence; of a failure with the way out.
    """

    check: str
    subject: str
    state: State
    text: str


def good(check: str, subject: str, text: str) -> Finding:
    """Nothing to complain about."""
    return Finding(check, subject, State.OK, text)


def failed(check: str, subject: str, text: str) -> Finding:
    """Something that has to be mended; ``text`` says how."""
    return Finding(check, subject, State.FAILED, text)


def skipped(check: str, subject: str, text: str) -> Finding:
    """Not looked at; ``text`` says why."""
    return Finding(check, subject, State.SKIPPED, text)
