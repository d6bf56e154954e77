"""Values in Go's form, lines that stay lines, secrets that stay secret."""

from enum import Enum, IntEnum, StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.log import escape, go_text, is_secret, mask_urls, masked
from kit.log.text import cut


class Color(StrEnum):
    RED = "red"


class Code(IntEnum):
    NOT_FOUND = 5


class Shape(Enum):
    ROUND = 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (None, "<nil>"),
        (30, "30"),
        (-(2**70), "-1180591620717411303424"),
        ("two words", "two words"),
        ("", ""),
        (1.0, "1"),
        (0.2, "0.2"),
        (-0.0, "-0"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (123456789.0, "123456789"),
        (1e15, "1000000000000000"),
        (1e16, "10000000000000000"),
        (1.2345678901234567e20, "123456789012345670000"),
        (1e21, "1e+21"),
        (float("nan"), "NaN"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        ([1, "a b", None], "[1 a b <nil>]"),
        ((), "[]"),
        (b"hi", "[104 105]"),
        ({"b": 2, "a": [True]}, "map[a:[true] b:2]"),
        ({}, "map[]"),
        (ValueError("no such user"), "no such user"),
        (TimeoutError(), "TimeoutError"),
        (Color.RED, "red"),
        (Code.NOT_FOUND, "NOT_FOUND"),
        (Shape.ROUND, "ROUND"),
    ],
)
def test_a_value_prints_as_go_prints_it(value: object, text: str) -> None:
    """The Go package fmt, verb ``%v``; numbers as strconv.FormatFloat(v, 'g', -1, 64)."""
    assert go_text(value) == text


def test_a_string_subclass_prints_its_text() -> None:
    """Many libraries hand out their own kind of string."""

    class Name(str):
        __slots__ = ()

    assert go_text(Name("ann")) == "ann"


@given(st.text())
def test_escaped_text_is_one_line_that_any_stream_takes(text: str) -> None:
    """No character of a value can end a line, and every line can be encoded."""
    line = escape(text)
    assert len(line.splitlines()) <= 1
    line.encode()


@pytest.mark.parametrize("text", ["Ünïcödé 世界 🎉", "a\\nb", "tab-free", "quo\"te='x'"])
def test_text_that_harms_nobody_is_left_alone(text: str) -> None:
    """Letters of any script, backslashes and quotes are not the log's business."""
    assert escape(text) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnp", "\\u202egnp"),
        ("\r", "\\r"),
    ],
)
def test_characters_that_forge_or_hide_are_shown(text: str, line: str) -> None:
    """Line ends, terminal sequences and turned reading order."""
    assert escape(text) == line


def test_a_text_at_the_limit_is_whole_and_one_above_is_cut() -> None:
    """What is missing is said."""
    assert cut("x" * 10, 10) == "x" * 10
    assert cut("x" * 11, 10) == "x" * 10 + "... (1 characters more)"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "db_password",
        "Store.Password",
        "redisPwd",
        "accessToken",
        "access-token",
        "authorization",
        "Set-Cookie",
        "client_secret",
        "apikey",
        "API_KEY",
        "private_key",
        "credentials",
        "pass",
        "db.pass",
        "dsn",
    ],
)
def test_a_key_that_looks_secret_is_secret(key: str) -> None:
    """The end of the name decides, in any case and spelling."""
    assert is_secret(key)


@pytest.mark.parametrize(
    "key", ["key", "gid", "max_tokens", "token_count", "compass", "bypass", "author", "keyspace"]
)
def test_a_key_that_only_resembles_a_secret_is_shown(key: str) -> None:
    """A log that hides numbers and compasses is of no use."""
    assert not is_secret(key)


def test_secrets_deep_inside_are_masked_and_the_original_is_left_alone() -> None:
    """Through mappings, lists and tuples."""
    value = {"calls": [{"headers": {"Authorization": "Bearer x"}}, ("y", {"pin": 1})], "n": 1}
    assert masked(value, frozenset({"pin"})) == {
        "calls": [{"headers": {"Authorization": "***"}}, ["y", {"pin": "***"}]],
        "n": 1,
    }
    assert value["calls"][0] == {"headers": {"Authorization": "Bearer x"}}  # type: ignore[index]


def test_the_password_of_a_url_is_masked() -> None:
    """User and host stay, they help to find the fault."""
    assert mask_urls("mysql://root:s3cret@db:3306/x, http://a/b:c@d") == (
        "mysql://root:***@db:3306/x, http://a/b:c@d"
    )
