"""Errors as values: equality, chains, copies, text."""

import pytest

import kit.errors
from kit.dtm.errors import Duplicated, Failure, Ongoing
from kit.errors import (
    BadRequest,
    ClientClosed,
    Conflict,
    Error,
    Forbidden,
    GatewayTimeout,
    InternalServer,
    NotFound,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
    from_error,
)

HELPERS = {
    BadRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooManyRequests: 429,
    ClientClosed: 499,
    InternalServer: 500,
    ServiceUnavailable: 503,
    GatewayTimeout: 504,
}


@pytest.mark.parametrize(("kind", "code"), HELPERS.items())
def test_a_helper_class_has_its_code_and_knows_its_own(kind: type[Error], code: int) -> None:
    """kratos' ``errors.NotFound`` and ``errors.IsNotFound``, spec §11.5."""
    error = kind("REASON", "message", {"k": "v"})  # type: ignore[call-arg,arg-type]
    assert (error.code, error.reason, error.message) == (code, "REASON", "message")
    assert error.metadata == {"k": "v"}
    for other in HELPERS:
        assert other.matches(error) == (other is kind)  # type: ignore[attr-defined]
    assert kind.matches(Error(code, "ANY"))  # type: ignore[attr-defined]


def test_a_wrapped_error_is_recognized_and_none_is_not() -> None:
    """``IsNotFound`` looks through the chain; no error has code 200."""
    error = LookupError("no such user")
    error.__cause__ = NotFound("USER_NOT_FOUND")
    assert NotFound.matches(error)
    assert not NotFound.matches(None)
    assert InternalServer.matches(LookupError("plain"))


def test_errors_are_equal_when_code_and_reason_are() -> None:
    """errors.go, Is: message, metadata and class are free to differ."""
    error = NotFound("USER_NOT_FOUND", "no user 5", {"id": "5"})
    assert error == Error(404, "USER_NOT_FOUND", "other")
    assert hash(error) == hash(Error(404, "USER_NOT_FOUND"))
    assert error != Error(404, "ORDER_NOT_FOUND", "no user 5")
    assert error != Error(400, "USER_NOT_FOUND", "no user 5")
    assert error != "USER_NOT_FOUND"
    assert error in {Error(404, "USER_NOT_FOUND"): 1}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            Error(404, "NO", "no 5", {"b": "2", "a": "1"}),
            "error: code = 404 reason = NO message = no 5 metadata = map[a:1 b:2] cause = <nil>",
        ),
        (Error(), "error: code = 500 reason =  message =  metadata = map[] cause = <nil>"),
        (
            Error(503, "DOWN", "m").with_cause(OSError("refused")),
            "error: code = 503 reason = DOWN message = m metadata = map[] cause = refused",
        ),
    ],
)
def test_the_text_is_that_of_kratos(error: Error, text: str) -> None:
    """Spec §11.1, with the map in Go's form."""
    assert str(error) == text


def test_code_and_reason_of_no_error_and_of_a_foreign_one() -> None:
    """Spec §11.1: 200 and empty; 500 and empty."""
    assert (kit.errors.code(None), kit.errors.reason(None)) == (200, "")
    assert (kit.errors.code(OSError("x")), kit.errors.reason(OSError("x"))) == (500, "")
    assert kit.errors.code(Forbidden("NO")) == 403
    assert kit.errors.reason(Forbidden("NO")) == "NO"


def test_from_error_gives_the_first_error_of_the_chain() -> None:
    """errors.go, FromError: the outermost one counts, and it is the same object."""
    inner, outer = NotFound("INNER"), Conflict("OUTER")
    outer.__cause__ = inner
    wrapper = RuntimeError("wrapper")
    wrapper.__cause__ = outer
    assert from_error(wrapper) is outer
    assert from_error(outer) is outer


def test_from_error_wraps_what_is_no_error_of_ours() -> None:
    """500, no reason, the text; the class where there is no text."""
    cause = OSError("disk full")
    wrapped = from_error(cause)
    assert (wrapped.code, wrapped.reason, wrapped.message) == (500, "", "disk full")
    assert wrapped.__cause__ is cause
    assert from_error(TimeoutError()).message == "TimeoutError"


def test_an_error_that_only_came_up_meanwhile_is_no_cause() -> None:
    """``__context__`` is an accident of where an exception was raised, not a reason."""
    error = RuntimeError("unrelated")
    error.__context__ = NotFound("INNER")
    assert from_error(error).code == 500


def test_a_chain_that_bites_its_tail_ends() -> None:
    """``raise error from error`` makes one."""
    error, other = RuntimeError("a"), RuntimeError("b")
    error.__cause__ = error
    assert from_error(error).message == "a"
    error.__cause__, other.__cause__ = other, error
    assert from_error(error).message == "a"


@pytest.mark.parametrize("original", [NotFound("R", "m", {"a": "1"}), Ongoing("wait")])
def test_a_copy_keeps_the_class_and_leaves_the_original_alone(original: Error) -> None:
    """errors.go, WithMetadata and WithCause; the class decides about the gRPC code."""
    before = (dict(original.metadata), original.__cause__)
    cause = OSError("x")
    caused = original.with_cause(cause)
    copy = caused.with_metadata({"b": "2"})
    assert type(copy) is type(original)
    assert copy == original
    assert (copy.message, copy.args) == (original.message, original.args)
    assert (copy.metadata, copy.__cause__) == ({"b": "2"}, cause)
    assert caused.metadata == original.metadata
    copy.metadata["c"] = "3"
    assert (original.metadata, original.__cause__) == before


def test_metadata_is_the_errors_own() -> None:
    """What the caller does with the mapping later changes nothing."""
    metadata = {"a": "1"}
    error = Error(metadata=metadata)
    metadata["a"] = "2"
    assert error.metadata == {"a": "1"}


def test_answers_of_a_branch_have_the_codes_that_dtm_reads() -> None:
    """style.md §8: FAILURE is 409, ONGOING 425."""
    assert (Failure().code, Failure().reason) == (409, "FAILURE")
    assert (Ongoing().code, Ongoing().reason) == (425, "ONGOING")
    assert Duplicated() != Failure()
