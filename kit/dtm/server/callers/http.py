"""Calls HTTP branches.

POST when there is a payload or the transaction is xa, else GET without a body; gid, trans_type,
branch_id and op are in the query. Unlike dtm no redirect is followed: it could lead where a branch
must not lead.

Source: dtm-labs/dtm dtmsvr/trans_status.go (getBranchResult), client/dtmcli/dtmimp/trans_base.go
(RequestBranch).
"""

from collections.abc import Mapping
from urllib.parse import urlencode

from yarl import URL

from kit import log
from kit.dtm.core import Branch, Transaction
from kit.dtm.server.callers import BranchAnswer
from kit.dtm.server.callers.classify import answer_of, classify_http
from kit.dtm.server.callers.exchange import ExchangeFailed, HttpExchange, HttpReply, http_url
from kit.dtm.server.callers.grpc import in_docker
from kit.dtm.server.targets import TargetRefused, Targets
from kit.dtm.wire import Result, TransType
from kit.errors.codes import GrpcCode

logger = log.get_logger()

CONTENT_TYPE = "application/json"


class HttpCaller:
    """Calls HTTP branches.

    Args:
        exchange: what sends; opened and closed by the caller.
        targets: which URLs may be called.
        legacy: words in the body of a 200 count, as services of dtm below 1.10 answer.
        docker: the process runs in a container, and ``localhost`` means the machine around it.
    """

    def __init__(
        self,
        exchange: HttpExchange,
        targets: Targets,
        *,
        legacy: bool = True,
        docker: bool = False,
    ) -> None:
        self._exchange = exchange
        self._targets = targets
        self._legacy = legacy
        self._docker = docker

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        """Ask one branch over HTTP."""
        try:
            url = http_url(with_query(self.located(branch.url), tx, branch))
            body = branch.payload if branch.payload or tx.trans_type is TransType.XA else None
        except ValueError as error:
            return answer_of(Result.UNKNOWN, str(error))
        method = "GET" if body is None else "POST"
        reply = await self.send(method, url, tx, body, limit)
        if isinstance(reply, BranchAnswer):
            return reply
        return answer_of(classify_http(reply.status, reply.body, legacy=self._legacy), reply.text)

    def located(self, url: str) -> str:
        """Where a branch is, seen from here."""
        return in_docker(url) if self._docker else url

    async def send(
        self, method: str, url: URL, tx: Transaction, body: bytes | None, limit: float
    ) -> HttpReply | BranchAnswer:
        """The reply, or the answer that stands for its absence."""
        try:
            self._targets.check(str(url))
            headers = with_content_type(tx.options.branch_headers)
            return await self._exchange.send(method, url, headers, body, limit)
        except TargetRefused as error:
            return answer_of(Result.UNKNOWN, str(error), GrpcCode.PERMISSION_DENIED)
        except ExchangeFailed as error:
            return answer_of(Result.UNKNOWN, str(error), error.code)
        except ValueError as error:
            return answer_of(Result.UNKNOWN, str(error))
        except Exception as error:
            logger.exception("branch call failed unexpectedly", gid=tx.gid)
            return answer_of(Result.UNKNOWN, str(error))


def with_query(url: str, tx: Transaction, branch: Branch) -> str:
    """``url`` with what tells the branch which call this is, behind the query that it has.

    >>> from kit.dtm.wire import Status
    >>> tx = Transaction("g 1", TransType.SAGA, Status.SUBMITTED)
    >>> with_query("http://h/a?b=%20", tx, Branch("01", "action", ""))
    'http://h/a?b=%20&branch_id=01&gid=g+1&op=action&trans_type=saga'
    """
    base = url.partition("#")[0]
    separator = "&" if "?" in base else "?"
    if base.endswith(("?", "&")):
        separator = ""
    added = urlencode(
        [
            ("branch_id", branch.branch_id),
            ("gid", tx.gid),
            ("op", branch.op),
            ("trans_type", tx.trans_type.value),
        ]
    )
    return f"{base}{separator}{added}"


def with_content_type(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Branch headers, and the content type unless they bring one."""
    return {"Content-Type": CONTENT_TYPE, **headers}
