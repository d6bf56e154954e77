"""What a branch answers, in each protocol: the class of an answer is its status.

======== ==== =================== ========
class    HTTP gRPC                JSON-RPC
======== ==== =================== ========
SUCCESS  200  OK                  a result
FAILURE  409  ABORTED             -32901
ONGOING  425  FAILED_PRECONDITION -32902
unknown  500  UNKNOWN             -32603
======== ==== =================== ========

kit's gRPC servers do this by themselves; :func:`install_results` has a web framework do it.

Source: dtm-labs/dtm client/dtmcli/utils.go, Result2HttpJSON; client/dtmgrpc/type.go,
DtmError2GrpcError.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kit.dtm.barrier.errors import BarrierError, CommitsApart
from kit.dtm.errors import Failure, Ongoing
from kit.dtm.wire import Result, with_result_word
from kit.errors import Error
from kit.errors.codes import GrpcCode

_ANSWERED = (Failure, Ongoing, BarrierError, CommitsApart)
"""The last two are unknown to a coordinator, and their text tells its log why it asks again."""

_WORDS = re.compile("FAILURE|ONGOING")
"""What dtm looks for in texts as well, and finds in words that were not meant."""


@dataclass(frozen=True, slots=True)
class DtmResult:
    """The answer of a branch that raised.

    Attributes:
        result: its class.
        http_status: for HTTP.
        grpc_code: for gRPC.
        json_rpc_code: of the ``error`` member.
        message: for people; contains no class's word but its own.
    """

    result: Result
    http_status: int
    grpc_code: GrpcCode
    json_rpc_code: int
    message: str

    @property
    def body(self) -> dict[str, str]:
        """Of an HTTP answer, as JSON: ``{"dtm_result": "FAILURE", "error": "…"}``."""
        return {"dtm_result": self.result, "error": self.message}

    @property
    def json_rpc_error(self) -> dict[str, object]:
        """The ``error`` member of a JSON-RPC answer."""
        return {"code": self.json_rpc_code, "message": self.message}


def dtm_result(error: BaseException) -> DtmResult:
    """The answer for ``error``, which left the handler of a branch.

    Only Failure and Ongoing have a meaning, wherever in the chain of causes they are. Everything
    else is unknown and asked again, whatever status it has of its own; its text does not travel
    unless it is an error of the kit's, made for people.

    >>> dtm_result(Failure("balance too low")).http_status
    409
    >>> dtm_result(ValueError("a secret")).message
    'internal error'
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, Failure):
            message = _said(cause.message, Result.FAILURE)
            return DtmResult(Result.FAILURE, 409, GrpcCode.ABORTED, -32901, message)
        if isinstance(cause, Ongoing):
            message = _said(cause.message, Result.ONGOING)
            return DtmResult(Result.ONGOING, 425, GrpcCode.FAILED_PRECONDITION, -32902, message)
        cause = cause.__cause__
    text = error.message if isinstance(error, Error) else "internal error"
    return DtmResult(Result.UNKNOWN, 500, GrpcCode.UNKNOWN, -32603, _plain(text))


def install_results(app: Any) -> None:
    """Have ``app`` answer Failure and Ongoing as a coordinator understands them.

    Args:
        app: of FastAPI, Starlette or Flask. Django has :class:`DtmResultMiddleware`.

    Raises:
        TypeError: it is something else.
    """
    if hasattr(app, "add_exception_handler"):
        from starlette.requests import Request
        from starlette.responses import JSONResponse

        async def answer(_: Request, error: Exception) -> JSONResponse:
            result = dtm_result(error)
            return JSONResponse(result.body, status_code=result.http_status)

        for kind in _ANSWERED:
            app.add_exception_handler(kind, answer)
    elif hasattr(app, "register_error_handler"):

        def reply(error: Exception) -> tuple[dict[str, str], int]:
            result = dtm_result(error)
            return result.body, result.http_status

        for kind in _ANSWERED:
            app.register_error_handler(kind, reply)
    else:
        raise TypeError(
            f"{type(app).__module__}.{type(app).__qualname__} is no application of FastAPI, "
            "Starlette or Flask; for Django name kit.dtm.barrier.results.DtmResultMiddleware in "
            "MIDDLEWARE"
        )


class DtmResultMiddleware:
    """Django: name it in ``MIDDLEWARE``; views of both kinds are answered."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction

        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any | Awaitable[Any]:
        """The answer of the views, awaited where they are."""
        return self._get_response(request)

    def process_exception(self, _: Any, error: Exception) -> Any:
        """The answer for an error of a view; ``None``, Django's own, when it has no meaning."""
        result = dtm_result(error)
        if not isinstance(error, _ANSWERED) and result.result is Result.UNKNOWN:
            return None
        from django.http import JsonResponse

        return JsonResponse(result.body, status=result.http_status)


def _said(message: str, word: Result) -> str:
    if message == word:
        return message
    return with_result_word(_plain(message.removesuffix(f" {word}")), word)


def _plain(text: str) -> str:
    return _WORDS.sub(lambda found: found.group().lower(), text)
