"""The vocabulary shared with dtm: every spelling that travels between processes.

Source: dtm-labs/dtm client/dtmcli/consts.go, client/dtmcli/dtmimp/consts.go,
dtmsvr/storage/trans.go.
"""

from enum import StrEnum

GRPC_SERVICE = "dtmgimp.Dtm"
WORKFLOW_EXECUTE = "/workflow.Workflow/Execute"
TOPIC_PREFIX = "topic://"

QUERY_BRANCH_ID = "00"
"""Pseudo branch of query-prepared and workflow callbacks."""

MAX_GID_CHARS = 128
MAX_BRANCHES = 1_000


class TransType(StrEnum):
    """What kind of global transaction."""

    MSG = "msg"
    SAGA = "saga"
    TCC = "tcc"
    XA = "xa"
    WORKFLOW = "workflow"


class Status(StrEnum):
    """Of a global transaction; the last two are terminal."""

    PREPARED = "prepared"
    SUBMITTED = "submitted"
    ABORTING = "aborting"
    SUCCEED = "succeed"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether nothing can change any more."""
        return self is Status.SUCCEED or self is Status.FAILED


class BranchStatus(StrEnum):
    """Of one branch operation."""

    PREPARED = "prepared"
    SUCCEED = "succeed"
    FAILED = "failed"


class Op(StrEnum):
    """What a branch is asked to do."""

    ACTION = "action"
    COMPENSATE = "compensate"
    TRY = "try"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    MSG = "msg"
    BUSINESS = "business"


class Protocol(StrEnum):
    """How the branches of a transaction are called."""

    HTTP = "http"
    GRPC = "grpc"
    JSON_RPC = "json-rpc"


class Result(StrEnum):
    """The class of an answer; UNKNOWN, all that is not one of the words, never travels."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    ONGOING = "ONGOING"
    UNKNOWN = "UNKNOWN"


class MetadataKey(StrEnum):
    """gRPC metadata of a branch call."""

    GID = "dtm-gid"
    TRANS_TYPE = "dtm-trans_type"
    BRANCH_ID = "dtm-branch_id"
    OP = "dtm-op"
    DTM = "dtm-dtm"
    PHASE2_URL = "dtm-phase2_url"


def with_result_word(text: str, word: Result) -> str:
    """``text`` ending with a space and ``word``, as errors that carry a class travel.

    Source: dtm-labs/dtm client/dtmcli/utils.go, ErrorMessage2Error.

    >>> with_result_word("insufficient", Result.FAILURE)
    'insufficient FAILURE'
    >>> with_result_word("insufficient FAILURE", Result.FAILURE)
    'insufficient FAILURE'
    >>> with_result_word("FAILURE", Result.FAILURE)
    'FAILURE FAILURE'
    """
    return text if text.endswith(f" {word}") else f"{text} {word}"
