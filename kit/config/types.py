"""Types for models of configuration."""

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field

from kit.duration import parse_duration


def _seconds(value: object) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int | float) and value != 0:
        raise ValueError("a duration needs a unit, for example 500ms, 1.5s or 1h2m")
    return value


Duration: TypeAlias = Annotated[
    float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False, strict=True)
]
"""Seconds as a float, written as Go writes durations (``1s``, ``200ms``, ``1h2m``), not negative.

A bare number is refused, except 0: its unit would be a guess. A default in the model is a number of
seconds: ``timeout: Duration = 1.0``.
"""
