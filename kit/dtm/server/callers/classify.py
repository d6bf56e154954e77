"""Which of the four classes an answer is.

The status decides. dtm also searches the words ONGOING and FAILURE in every body, whatever its
status: an error page that mentions a failure would roll money back. Here the words count only in
the body of a 200, as services of dtm below 1.10 answer, and only as whole words: neither
``FAILURES`` nor ``NO_FAILURE``.

Source: dtm-labs/dtm client/dtmcli/utils.go (HTTPResp2DtmError), client/dtmgrpc/type.go
(GrpcError2DtmError), dtmsvr/trans_status.go (getBranchResult).
"""

import re

from kit.dtm.server.callers import MAX_TEXT, BranchAnswer
from kit.dtm.wire import Result
from kit.errors.codes import GrpcCode

_ONGOING = re.compile(rb"\bONGOING\b")
_FAILURE = re.compile(rb"\bFAILURE\b")

_OF_STATUS = {
    200: Result.SUCCESS,
    409: Result.FAILURE,
    425: Result.ONGOING,
}

_CODE = {
    Result.SUCCESS: None,
    Result.FAILURE: GrpcCode.ABORTED,
    Result.ONGOING: GrpcCode.FAILED_PRECONDITION,
    Result.UNKNOWN: GrpcCode.UNKNOWN,
}


def classify(code: GrpcCode, message: str) -> Result:
    """The class of a branch's gRPC answer.

    ABORTED with exactly ``ONGOING`` as its message is how dtm below 1.10 said ONGOING.
    """
    match code:
        case GrpcCode.OK:
            return Result.SUCCESS
        case GrpcCode.ABORTED:
            return Result.ONGOING if message == Result.ONGOING else Result.FAILURE
        case GrpcCode.FAILED_PRECONDITION:
            return Result.ONGOING
        case _:
            return Result.UNKNOWN


def classify_http(status: int, body: bytes, *, legacy: bool) -> Result:
    """The class of a branch's HTTP answer.

    Args:
        status: of the answer; 201 and 204 say as little as 500.
        body: empty when it was too long to be read.
        legacy: words in the body of a 200 count.

    >>> classify_http(200, b'{"dtm_result":"FAILURE"}', legacy=True)
    <Result.FAILURE: 'FAILURE'>
    >>> classify_http(500, b"FAILURE", legacy=True)
    <Result.UNKNOWN: 'UNKNOWN'>
    """
    result = _OF_STATUS.get(status, Result.UNKNOWN)
    return words_in(body) if result is Result.SUCCESS and legacy else result


def words_in(body: bytes) -> Result:
    """What the words in ``body`` say; SUCCESS when there are none."""
    if _ONGOING.search(body):
        return Result.ONGOING
    return Result.FAILURE if _FAILURE.search(body) else Result.SUCCESS


def answer_of(result: Result, text: str = "", code: int | None = None) -> BranchAnswer:
    """An answer with the gRPC code that comes nearest to its class, and not too long a text."""
    if result is Result.SUCCESS:
        return BranchAnswer(result)
    return BranchAnswer(result, text[:MAX_TEXT], _CODE[result] if code is None else code)
