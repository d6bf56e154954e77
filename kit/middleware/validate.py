"""Answers 400 ``VALIDATOR`` to requests that break the rules of their own message.

Rules are protovalidate's, written beside the fields (``pip install kit[validate]``), or functions.
The message of the error is the first violation, as in kratos; its metadata has all of them, by
field.

Source: go-kratos/kratos contrib/middleware/validate/validate.go; middleware/validate of v2.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from kit.errors import BadRequest
from kit.transport import Handler, Middleware

REASON = "VALIDATOR"
DETAIL_BYTES = 4 << 10
"""Of the violations that an error carries: they travel in headers, and peers refuse 8 KiB of them.
The metadata key ``…`` says how many were left out."""
_OVERHEAD = 8
LONGEST_PATH = 200
"""Characters of a field's name in an error: keys of maps are the caller's."""

Check = Callable[[Any], object]
"""Raises an exception whose text says what is wrong; what it gives is not looked at."""


def validate(*checks: Check, validator: Validator | None = None) -> Middleware:
    """Checks each request of a server; around a stream each message that is received or sent.

    Args:
        checks: functions that are called with the request, after the rules of the message.
        validator: keeps compiled rules; one for this middleware by default.
    """
    rules = validator or Validator()

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            if isinstance(request, Message):
                violations = rules.collect_violations(request)
                if violations:
                    raise _broken(violations)
            for check in checks:
                try:
                    check(request)
                except Exception as error:
                    raise BadRequest(REASON, str(error) or type(error).__name__) from error
            return await handler(request)

        return call

    return wrap


def _broken(violations: list[Violation]) -> BadRequest:
    details: dict[str, str] = {}
    left = DETAIL_BYTES
    for number, violation in enumerate(violations):
        field, text = _field(violation), _text(violation)
        left -= len(f"{field}{text}".encode()) + _OVERHEAD
        if left < 0 and number:
            details["…"] = f"{len(violations) - number} more"
            break
        details[field] = f"{details[field]}; {text}" if field in details else text
    first = violations[0]
    field = _field(first)
    return BadRequest(REASON, f"{field}: {_text(first)}" if field else _text(first), details)


def _text(violation: Violation) -> str:
    return violation.proto.message or violation.proto.rule_id


def _field(violation: Violation) -> str:
    """Where it is, such as ``lines[2].amount``; empty for a rule of the whole message."""
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            path += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"
