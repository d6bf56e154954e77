"""What the coordinator does for whoever asks, whichever API brings the question.

The gRPC, HTTP and JSON-RPC APIs translate; everything that they have in common is here.

Source: dtm-labs/dtm dtmsvr/api.go.
"""

from collections.abc import Callable, Sequence

from kit import log
from kit.clock import Clock
from kit.dtm.core import (
    Aborted,
    Answer,
    Branch,
    Outcome,
    Prepared,
    Registered,
    Reply,
    Request,
    Stopped,
    Submitted,
)
from kit.dtm.server.engine import Engine
from kit.dtm.server.requests import InvalidRequest, check_url
from kit.dtm.server.topics import Topics
from kit.dtm.store import Filter, Held, KeyValue, Store
from kit.dtm.wire import MAX_BRANCHES, TOPIC_PREFIX
from kit.value import changed

logger = log.get_logger()

NOBODY = "no TransGlobal with gid: {gid} found"
"""dtm's words for a gid that is not stored."""


class Service:
    """The coordinator behind its APIs.

    Args:
        new_gid: makes an id that nobody else makes.
        check_target: raises ValueError for the URL of a branch that must or can never be called.
        timeout_to_fail: seconds, the server's setting; ``reset_cron_time`` counts from it.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        clock: Clock,
        *,
        new_gid: Callable[[], str],
        check_target: Callable[[str], None] = lambda _: None,
        timeout_to_fail: int = 35,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._check_target = check_target
        self.new_gid = new_gid
        self.timeout_to_fail = timeout_to_fail
        self._topics = Topics(store, self._check_subscriber)

    async def prepare(self, request: Request) -> Reply | Answer:
        """Store a transaction, to be submitted or aborted later.

        All methods raise :class:`~kit.dtm.store.StoreUnavailable` when the store does not answer,
        and :class:`InvalidRequest` when a branch can never be called.
        """
        request = await self._ready(request)
        return await self._engine.handle(Prepared(self._clock.now_ms(), request))

    async def submit(self, request: Request) -> Reply | Answer:
        """Carry a transaction out; answered after the first round when it asks to wait."""
        request = await self._ready(request)
        return await self._engine.handle(Submitted(self._clock.now_ms(), request))

    async def abort(self, request: Request) -> Reply | Answer:
        """Undo a transaction that is prepared."""
        # what the client repeats in its body is of no interest: the stored branches count
        request = changed(request, branches=())
        return await self._engine.handle(Aborted(self._clock.now_ms(), request))

    async def register(self, request: Request) -> Reply | Answer:
        """Add branches to a prepared transaction."""
        self._check_targets(request.branches)
        return await self._engine.handle(Registered(self._clock.now_ms(), request))

    async def prepare_workflow(self, request: Request) -> Reply | Answer:
        """Store a workflow, or find the one that is stored, with its progress in ``tx``."""
        answer = await self.prepare(request)
        if isinstance(answer, Reply) and answer.outcome is Outcome.SUCCESS:
            # the store and not the memory: another coordinator may have taken down progress
            held = await self._store.load(request.gid)
            if held is not None:
                return changed(answer, tx=held.tx)
        return answer

    async def force_stop(self, gid: str, reason: str = "") -> Reply | Answer:
        """End a transaction as failed without calling anybody."""
        return await self._engine.handle(Stopped(self._clock.now_ms(), gid, reason))

    async def query(self, gid: str) -> Held | None:
        """A transaction with its branches, as stored."""
        return await self._store.load(gid)

    async def scan(
        self, gid: str, position: str, limit: int, which: Filter
    ) -> tuple[list[Held], str]:
        """A page of transactions without branches; the one with ``gid`` when that is given.

        Raises:
            InvalidRequest: the position is none that a page gave.
        """
        if gid:
            held = await self._store.load(gid)
            return ([held] if held else []), position
        try:
            return await self._store.scan(position, limit, which)
        except ValueError as error:
            raise InvalidRequest(f"position: {error}") from None

    async def reset_next_cron_time(self, gid: str) -> bool:
        """Make a transaction due now; tell whether it is stored."""
        found = await self._store.reset_next_cron_time(gid)
        self._engine.on_wake(0)
        return found

    async def reset_cron_time(self, timeout_s: int, limit: int) -> tuple[int, bool]:
        """Make up to ``limit`` transactions due now that wait longer than ``timeout_s``.

        Returns:
            How many, and whether more of them remain.
        """
        now = await self._store.now_ms()
        number, more = await self._store.reset_cron_time(now + timeout_s * 1000, limit)
        self._engine.on_wake(0)
        return number, more

    async def subscribe(self, topic: str, url: str, remark: str = "") -> None:
        """Add a URL to a topic; raises :class:`~kit.dtm.server.topics.TopicError`."""
        await self._topics.subscribe(topic, url, remark)

    async def unsubscribe(self, topic: str, url: str) -> None:
        """Take a URL out of a topic; raises :class:`~kit.dtm.server.topics.TopicError`."""
        await self._topics.unsubscribe(topic, url)

    async def delete_topic(self, topic: str) -> None:
        """Remove a topic; raises :class:`~kit.dtm.server.topics.TopicError`."""
        await self._topics.delete(topic)

    async def find_kv(self, cat: str, key: str) -> list[KeyValue]:
        """Entries of the key-value table; what is empty does not matter."""
        return await self._store.find_kv(cat, key)

    async def scan_kv(self, cat: str, position: str, limit: int) -> tuple[list[KeyValue], str]:
        """A page of the key-value table.

        Raises:
            InvalidRequest: the position is none that a page gave.
        """
        try:
            return await self._store.scan_kv(cat, position, limit)
        except ValueError as error:
            raise InvalidRequest(f"position: {error}") from None

    async def _ready(self, request: Request) -> Request:
        """``request`` with topics replaced by their subscribers, and callable."""
        branches = request.branches
        if any(branch.url.startswith(TOPIC_PREFIX) for branch in branches):
            if await self._store.load(request.gid) is not None:
                # the subscribers of the time when it was stored count, not those of today
                return changed(request, branches=())
            branches = await self._expanded(branches)
            request = changed(request, branches=branches)
        self._check_targets(branches)
        if request.query_prepared:
            self._check("QueryPrepared", request.query_prepared)
        return request

    async def _expanded(self, branches: Sequence[Branch]) -> tuple[Branch, ...]:
        """A branch for each subscriber, ``01-01``, ``01-02``, … where there are several.

        Source: dtm-labs/dtm dtmsvr/trans_type_msg.go, GenBranches.
        """
        rows: list[Branch] = []
        for branch in branches:
            if not branch.url.startswith(TOPIC_PREFIX):
                rows.append(branch)
                continue
            urls = await self._topics.urls(branch.url.removeprefix(TOPIC_PREFIX))
            if len(urls) == 1:
                rows.append(changed(branch, url=urls[0]))
            else:
                rows += (
                    changed(branch, url=url, branch_id=f"{branch.branch_id}-{number:02d}")
                    for number, url in enumerate(urls, 1)
                )
            if len(rows) > MAX_BRANCHES:
                raise InvalidRequest(
                    f"Steps: with the subscribers of its topics the message has more than "
                    f"{MAX_BRANCHES} branches"
                )
        return tuple(rows)

    def _check_targets(self, branches: Sequence[Branch]) -> None:
        for branch in branches:
            if branch.url:
                self._check(f"{branch.op} of branch {branch.branch_id}", branch.url)

    def _check_subscriber(self, field: str, url: str) -> str:
        check_url(field, url)
        self._check(field, url)
        return url

    def _check(self, field: str, url: str) -> None:
        try:
            self._check_target(url)
        except ValueError as error:
            raise InvalidRequest(f"{field}: {error}") from None
