"""Types for models of configuration."""

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, ValidationInfo

from kit.duration import parse_duration

WRITTEN = {"kit.config": "written"}
"""The context in which a model is filled from what people wrote."""


def _seconds(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return parse_duration(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if info.context is WRITTEN and is_number and value != 0:
        raise ValueError("a duration needs a unit, for example 500ms, 1.5s or 1h2m")
    return value


Duration: TypeAlias = Annotated[
    float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False, strict=True)
]
"""Seconds as a float, written as Go writes durations (``1s``, ``200ms``, ``1h2m``), not negative.

A bare number in a configuration is refused, except 0: its unit would be a guess. In code it is a
number of seconds: ``timeout: Duration = 1.0``, ``Listener(timeout=0.2)``.
"""
