"""From a call to the branch that it is for, and from an error to its answer."""

from typing import Any

import django.conf
import pytest

from kit.dtm.barrier import (
    BarrierError,
    BranchBarrier,
    barrier_from_grpc,
    barrier_from_query,
    barrier_from_request,
    current_barrier,
)
from kit.dtm.barrier.results import DtmResultMiddleware, dtm_result, install_results
from kit.dtm.errors import Failure, Ongoing
from kit.dtm.wire import Result
from kit.errors import Conflict, InternalServer
from kit.metadata import Metadata
from kit.transport import CallInfo, Kind, call_info

QUERY = "gid=g&trans_type=saga&branch_id=01&op=action"
EXPECTED = BranchBarrier("saga", "g", "01", "action")


def test_line_ends_and_semicolons_of_a_query_are_dropped() -> None:
    """dtm-labs/dtm client/dtmcli/barrier.go, BarrierFromQuery."""
    query = {"gid": "g\r\n;1", "trans_type": "saga", "branch_id": "01", "op": "action"}
    assert barrier_from_query(query).gid == "g1"


def test_what_a_query_lacks_is_named() -> None:
    with pytest.raises(BarrierError, match="gid, op missing"):
        barrier_from_query({"trans_type": "saga", "branch_id": "01", "gid": ";"})


def test_ids_that_do_not_fit_are_named_before_they_are_cut() -> None:
    with pytest.raises(BarrierError, match="gid has more than 128"):
        BranchBarrier("saga", "g" * 129, "01", "action").next_row()


@pytest.mark.parametrize("op", ["compensat", "Cancel", "business"])
def test_an_op_that_nobody_sends_is_refused(op: str) -> None:
    """It has no origin that is known, so that an undo would run with nothing to undo."""
    with pytest.raises(BarrierError, match=f"op '{op}' is none; use one of action, compensate"):
        BranchBarrier("saga", "g", "01", op).next_row()


def test_uses_are_counted_with_two_digits() -> None:
    barrier = BranchBarrier("saga", "g", "01", "action")
    ids = [barrier.next_row().barrier_id for _ in range(100)]
    assert (ids[0], ids[1], ids[98], ids[99]) == ("01", "02", "99", "100")
    assert barrier == EXPECTED


def test_a_table_that_is_no_name_is_refused() -> None:
    import sqlite3

    barrier = barrier_from_grpc(
        [("dtm-gid", "g"), ("dtm-trans_type", "s"), ("dtm-branch_id", "1"), ("dtm-op", b"action")],
        table="a; DROP TABLE b",
    )
    with sqlite3.connect(":memory:") as connection, pytest.raises(BarrierError, match="no name"):
        barrier.call(connection, lambda: None)
    connection.close()


def test_a_handler_of_the_kit_asks_for_its_own_branch() -> None:
    with pytest.raises(BarrierError, match="no call"):
        current_barrier()
    headers = Metadata()
    for name, value in (
        ("gid", "g"),
        ("trans_type", "saga"),
        ("branch_id", "01"),
        ("op", "action"),
    ):
        headers.set(f"dtm-{name}", value)
    token = call_info.set(CallInfo(Kind.GRPC, "server", "/a/b", request_headers=headers))
    try:
        assert current_barrier() == EXPECTED
    finally:
        call_info.reset(token)


def raising(request: Any) -> dict[str, str]:
    """A view of any framework."""
    barrier = barrier_from_request(request)
    assert barrier == EXPECTED
    errors = {"no": Failure("balance too low"), "later": Ongoing("ask again")}
    if (word := (getattr(request, "path", "") or request.url.path).strip("/")) in errors:
        raise errors[word]
    return {"dtm_result": "SUCCESS"}


ANSWERS = (
    ("/yes", 200, {"dtm_result": "SUCCESS"}),
    ("/no", 409, {"dtm_result": "FAILURE", "error": "balance too low FAILURE"}),
    ("/later", 425, {"dtm_result": "ONGOING", "error": "ask again ONGOING"}),
)


async def asgi(app: Any, path: str) -> tuple[int, dict[str, str]]:
    """One GET, without a server."""
    import json

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "path": path, "raw_path": path.encode(), "query_string": QUERY.encode(), "headers": [],
        "scheme": "http", "server": ("localhost", 80), "client": ("localhost", 1), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)


@pytest.mark.parametrize(("path", "status", "body"), ANSWERS)
async def test_fastapi_and_starlette_views_answer(path: str, status: int, body: Any) -> None:
    from fastapi import FastAPI, Request
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    fastapi = FastAPI()

    async def view(request: Request) -> dict[str, str]:
        return raising(request)

    async def plain(request: Any) -> JSONResponse:
        return JSONResponse(raising(request))

    fastapi.get("/{word}")(view)
    starlette = Starlette(routes=[Route("/{word}", plain)])
    for app in (fastapi, starlette):
        install_results(app)
        assert await asgi(app, path) == (status, body)


async def test_a_call_without_its_ids_is_told_which_are_missing() -> None:
    """By whoever reads the coordinator's log, not only the service's own."""
    from fastapi import FastAPI, Request

    app = FastAPI()
    install_results(app)

    async def view(request: Request) -> None:
        raise BarrierError("query gid missing")

    app.get("/{word}")(view)
    status, body = await asgi(app, "/out")
    assert (status, body["error"]) == (500, "query gid missing")
    if not django.conf.settings.configured:
        django.conf.settings.configure()
    assert DtmResultMiddleware(view).process_exception(None, BarrierError("x")).status_code == 500


@pytest.mark.parametrize(("path", "status", "body"), ANSWERS)
def test_flask_views_answer(path: str, status: int, body: Any) -> None:
    from flask import Flask, request

    app = Flask("branches")
    install_results(app)
    app.get("/<word>")(lambda word: raising(request))
    answer = app.test_client().get(f"{path}?{QUERY}")
    assert (answer.status_code, answer.get_json()) == (status, body)


@pytest.mark.parametrize(("path", "status", "body"), ANSWERS)
def test_django_views_answer(path: str, status: int, body: Any) -> None:
    import json

    if not django.conf.settings.configured:
        django.conf.settings.configure()
    from django.http import JsonResponse
    from django.test import RequestFactory

    def view(request: Any) -> Any:
        try:
            return JsonResponse(raising(request))
        except Exception as exc:
            return middleware.process_exception(request, exc)

    middleware = DtmResultMiddleware(view)
    answer: Any = middleware(RequestFactory().get(f"{path}?{QUERY}"))
    assert (answer.status_code, json.loads(answer.content)) == (status, body)
    assert middleware.process_exception(None, ValueError("boom")) is None


def test_only_failure_and_ongoing_have_a_meaning() -> None:
    """A conflict of the kit's is a 409 of its own, and yet no FAILURE of a branch."""
    for error in (Conflict("TAKEN", "is taken"), ValueError("x"), InternalServer("X", "x")):
        result = dtm_result(error)
        assert (result.result, result.http_status) == (Result.UNKNOWN, 500)
    assert dtm_result(ValueError("secret")).message == "internal error"
    assert dtm_result(Conflict("TAKEN", "is taken")).message == "is taken"


def test_a_class_is_found_in_the_chain_of_causes() -> None:
    error = RuntimeError("outer")
    error.__cause__ = Failure("balance too low")
    assert dtm_result(error).result is Result.FAILURE
    error.__cause__ = error
    assert dtm_result(error).result is Result.UNKNOWN


def test_no_text_contains_the_word_of_another_class() -> None:
    """dtm reads bodies: a 500 that speaks of a FAILURE would be one."""
    assert dtm_result(InternalServer("X", "FAILURE of a disk")).message == "failure of a disk"
    assert dtm_result(Failure("ONGOING repair")).message == "ongoing repair FAILURE"
    assert dtm_result(Ongoing()).message == "ONGOING"


def test_json_rpc_answers_with_the_codes_of_dtm() -> None:
    assert dtm_result(Failure("no")).json_rpc_error == {"code": -32901, "message": "no FAILURE"}
    assert dtm_result(Ongoing("later")).json_rpc_code == -32902
    assert dtm_result(ValueError()).json_rpc_code == -32603


def test_what_is_no_application_or_request_is_named() -> None:
    with pytest.raises(TypeError, match="MIDDLEWARE"):
        install_results(object())
    with pytest.raises(BarrierError, match="has no query"):
        barrier_from_request(object())
