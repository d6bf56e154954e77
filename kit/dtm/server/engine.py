"""Carries out the commands of the core; contains no rule of any mode.

Theory of operation
    A transaction that something happens to is *live*: it stands in memory once, and its events are
    handled one after the other. An event goes through :func:`kit.dtm.core.step`; its commands are
    run in order, and a ``Save`` is durable before what follows it leaves. When no round is running
    the transaction is forgotten again: the store is the only state that counts. One that is
    prepared is remembered for a moment, so that the next request of its client need not read it:
    what is decided on that counts only when a save succeeds with its fence, which every change by
    anybody raises.

    No branch is called without a lease. It is taken by the save that starts a round, renewed while
    the round runs, and given back by the save that ends it. A save that the store refuses because
    the lease went to somebody else ends the round here: whoever has the lease goes on.

    A deferred save waits for the next one of its transaction, 50 ms at the most. Who may have slept
    through its lease (a stopped process, a paused machine) defers nothing and calls nobody before
    the store has confirmed that the lease is still its own.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence

from kit import log
from kit.clock import Clock
from kit.dtm.core import (
    Alert,
    Answer,
    Answered,
    ApiEvent,
    Branch,
    BranchKey,
    Call,
    Command,
    Outcome,
    Policy,
    Prepared,
    Reply,
    Save,
    Stopped,
    Submitted,
    Transaction,
    Wake,
    Woken,
    step,
)
from kit.dtm.server import failpoints
from kit.dtm.server.caller import Caller
from kit.dtm.store import (
    BranchExists,
    Change,
    GidExists,
    Held,
    LostLease,
    Store,
    StoreUnavailable,
)
from kit.dtm.wire import Result, Status, TransType
from kit.value import changed

logger = log.get_logger()

DEFERRED_S = 0.05
"""The longest that a deferred save waits for another to ride with."""

MAX_LIVE = 10_000
"""Transactions in memory; further requests are told to come back."""

MAX_RECOVERING = MAX_LIVE // 10
"""Of them, those that were claimed: a backlog must not crowd out new requests."""

MAX_REMEMBERED = 1_000
"""Prepared transactions that need not be read again for the next request of their client."""

REMEMBERED_S = 10.0
"""How long each is; far less than a gid takes to end, be purged and be used once more."""

REMEMBERED_BYTES = 16_384
"""URLs, payloads and custom data of each, about; a larger one is read again."""

BUSY_S = 3.0
"""How long a request waits for a transaction that another coordinator holds."""

MAX_LOGGED_CHARS = 200
"""Of what a branch says about itself; the rest may be as large as its page of errors."""

_BUSY_PAUSE_S = 0.05
_UNEXPECTED = "the round failed unexpectedly"
_TROUBLE = (Outcome.UNKNOWN, Outcome.FAILURE)


class _Live:
    """One transaction in memory.

    Attributes:
        fence: 0 until it is stored.
        held: its lease is ours, as far as we know.
        since: when it became ours, on the monotonic clock.
        until: when it ends at the earliest, unless it is renewed.
    """

    __slots__ = (
        "fence",
        "flush",
        "gid",
        "held",
        "lock",
        "pending",
        "since",
        "tx",
        "until",
        "users",
        "waiting",
    )

    def __init__(self, gid: str) -> None:
        self.gid = gid
        self.tx: Transaction | None = None
        self.fence = 0
        self.held = False
        self.lock = asyncio.Lock()
        self.users = 0
        self.pending: dict[BranchKey, Branch] = {}
        self.flush: asyncio.TimerHandle | None = None
        self.waiting: list[asyncio.Future[Answer]] = []
        self.since = 0.0
        self.until = 0.0


class Engine:
    """Runs transactions.

    Args:
        store: where they live; opened and closed by the caller.
        caller: how branches are asked.
        owner: the name that leases are taken under; unique among coordinators.
        request_timeout: seconds for a branch call, unless the transaction says otherwise.
        lease_s: seconds that a lease lasts without renewal.
        coalesce: a save that the core allows to be deferred waits for the next one.
        on_wake: told when a transaction will be due, in milliseconds of the store's clock.
        on_alert: told of a branch that gives no usable answer again and again.
        on_round: told when a round ends: the transaction, and whether it went without trouble.

    Attributes:
        requests: how many have come from clients.
    """

    def __init__(
        self,
        store: Store,
        caller: Caller,
        clock: Clock,
        policy: Policy,
        *,
        owner: str,
        request_timeout: float = 3.0,
        lease_s: float = 10.0,
        coalesce: bool = True,
        on_wake: Callable[[int], None] = lambda _: None,
        on_alert: Callable[[Transaction, Alert], None] = lambda _, __: None,
        on_round: Callable[[Transaction, bool], None] = lambda _, __: None,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._caller = caller
        self._clock = clock
        self._policy = policy
        self._owner = owner
        self._request_timeout = request_timeout
        self._lease_s = lease_s
        self._coalesce = coalesce
        self._rng = rng or random.Random()  # noqa: S311  (spreads retries, guards nothing)
        self.requests = 0
        self.on_wake = on_wake
        self._on_alert = on_alert
        self._on_round = on_round
        self._live: dict[str, _Live] = {}
        self._claimed: set[_Live] = set()
        self._remembered: OrderedDict[str, tuple[Transaction, int, float]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def live(self) -> int:
        """Transactions in memory right now."""
        return len(self._live)

    @property
    def busy(self) -> bool:
        """Whether a transaction is in memory or on its way there."""
        return bool(self._live or self._tasks)

    @property
    def room(self) -> int:
        """Claimed transactions that may still be woken.

        What clients brought does not count, or a busy hour would leave due ones waiting.
        """
        return min(MAX_RECOVERING - len(self._claimed), MAX_LIVE - len(self._live))

    async def aclose(self, grace: float = 5.0) -> None:
        """Let running rounds end, at most ``grace`` seconds; then keep what they brought and leave.

        What is cut short is taken up again by the next coordinator: its lease is given back.
        """
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for live in list(self._live.values()):
            async with live.lock:
                await self._give_back(live)

    async def handle(self, event: ApiEvent) -> Reply | Answer:
        """What a client is told about its request.

        Raises:
            StoreUnavailable: the store does not answer, or too much is going on; whether the
                request took effect is unknown, and it may be repeated.
        """
        self.requests += 1
        if self._closing:
            raise StoreUnavailable("the coordinator is stopping; repeat the request")
        gid = event.gid if isinstance(event, Stopped) else event.request.gid
        if len(self._live) >= MAX_LIVE and gid not in self._live:
            raise StoreUnavailable(f"{MAX_LIVE} transactions are in progress; repeat the request")
        while True:
            live = self._enter(gid)
            try:
                async with live.lock:
                    if self._live.get(gid) is not live:
                        continue  # forgotten while this request waited: nobody hears it any more
                    answer, calls = await self._decide(live, event)
                if calls:
                    self._spawn(self._drive(live, calls))
            finally:
                self._leave(live)
            if isinstance(answer, Reply | Answer):
                return answer
            try:
                return await answer
            finally:  # a client that went away is not waited for by the round
                if answer in live.waiting:
                    live.waiting.remove(answer)

    def wake(self, held: Held, asked: float | None = None) -> None:
        """Start a round of a transaction that was claimed for this coordinator.

        Args:
            held: as the claim gave it.
            asked: when it was claimed, on the monotonic clock; now by default.
        """
        self._spawn(self._wake(held, self._clock.monotonic() if asked is None else asked))

    async def round(self, gid: str) -> bool:
        """Run a round of one transaction now, until it has ended; tell whether it is stored.

        A round that runs already is waited for. For development and tests.
        """
        live = self._enter(gid)
        try:
            async with live.lock:
                if live.tx is None:
                    await self._load(live)
                if live.tx is None:
                    return False
                calls = await self._deliver(live, Woken(self._clock.now_ms()))
            if calls:
                self._spawn(self._drive(live, calls))
            while live.tx is not None and live.tx.round is not None:  # noqa: ASYNC110 - tests only
                await asyncio.sleep(0.002)
        finally:
            self._leave(live)
        return True

    async def renew(self) -> None:
        """Extend the leases of rounds that have been running for a while."""
        now = self._clock.monotonic()
        old = now - self._lease_s / 4
        held = [(x.gid, x.fence) for x in self._live.values() if x.held and x.since < old]
        if not held:
            return
        lost = set(await self._store.renew(self._owner, held, lease_s=self._lease_s))
        for gid, fence in held:
            live = self._live.get(gid)
            if live is None or live.fence != fence:
                continue
            if gid in lost:
                # given back meanwhile is not lost, and a save under way finds out for itself
                if live.held and not live.lock.locked():
                    self._forget(live, "its lease was lost")
            else:
                live.until = now + self._lease_s

    async def _decide(
        self, live: _Live, event: ApiEvent
    ) -> tuple[Reply | Answer | asyncio.Future[Answer], list[Call]]:
        """Step until the store agrees; another coordinator may be changing the same transaction."""
        looked = live.tx is not None or not (self._recall(live) or _looks_new(event))
        if live.tx is None and looked:
            await self._load(live)
        give_up = self._clock.monotonic() + BUSY_S
        while True:
            before = live.tx
            tx, commands = step(before, event, self._policy)
            reply: asyncio.Future[Answer] | None = None
            answer, saves = _reply_in(commands), _saves(commands)
            if not looked and not saves:
                looked = True  # nobody has asked the store yet, and no save is going to
                await self._load(live)
                continue
            if answer is None:
                reply = asyncio.get_running_loop().create_future()
                live.waiting.append(reply)
            try:
                calls = await self._run(live, tx, commands)
            except BranchExists:
                live.tx = before
                return Reply(Outcome.UNKNOWN, "storage: UniqueKeyConflict"), []
            except (GidExists, LostLease):
                if reply is not None:
                    live.waiting.remove(reply)
                live.tx = before
                if answer is not None and not saves:
                    # only a round was wanted: whoever holds the lease runs it
                    live.tx = None
                    return answer, []
                if self._clock.monotonic() > give_up:
                    raise StoreUnavailable(
                        f"Gid: '{live.gid}' is being processed by another coordinator; "
                        "repeat the request"
                    ) from None
                if before is not None and looked:
                    await self._clock.sleep(_BUSY_PAUSE_S)
                looked = True
                await self._load(live)
            except BaseException:
                if reply is not None and reply in live.waiting:
                    live.waiting.remove(reply)
                live.tx = before
                raise
            else:
                return (answer or reply or Reply(Outcome.SUCCESS)), calls

    def _recall(self, live: _Live) -> bool:
        """Go on from what is remembered, if anything is; a save has to confirm it."""
        tx, fence, until = self._remembered.pop(live.gid, (None, 0, 0.0))
        if tx is None or self._clock.monotonic() > until:
            return False
        live.tx, live.fence = tx, fence
        return True

    def _remember(self, live: _Live) -> None:
        self._remembered.pop(live.gid, None)
        tx = live.tx
        # Saves of who holds the lease, and progress of a workflow, are written without a new fence.
        if tx is None or live.held or tx.trans_type is TransType.WORKFLOW:
            return
        if tx.status is not Status.PREPARED:
            return
        size = len(tx.custom_data) + sum(len(b.url) + len(b.payload) for b in tx.branches)
        if size <= REMEMBERED_BYTES:
            until = self._clock.monotonic() + REMEMBERED_S
            self._remembered[live.gid] = tx, live.fence, until
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)

    async def _load(self, live: _Live) -> None:
        held = await self._store.load(live.gid)
        live.tx, live.fence = (held.tx, held.fence) if held else (None, 0)
        live.held = False
        live.pending.clear()  # whoever held the lease meanwhile asked those branches himself

    async def _run(
        self, live: _Live, tx: Transaction | None, commands: Sequence[Command]
    ) -> list[Call]:
        """Carry out ``commands``; give the calls, to be made after letting go of the lock."""
        calls: list[Call] = []
        before, live.tx = live.tx, tx
        if before is None:
            live.fence = 0  # it is created, never written over what may be stored
        for command in commands:
            match command:
                case Save():
                    await self._save(live, command)
                case Call():
                    if not live.held or self._overslept(live):
                        assert tx is not None
                        await self._save(live, Save(tx))
                    calls.append(command)
                case Answer():
                    self._answer(live, command)
                case Wake():
                    self.on_wake(command.at)
                case Alert():
                    assert tx is not None
                    self._on_alert(tx, command)
                case Reply():
                    pass  # the API event's own; its caller has it already
        if before is not None and before.round is not None and tx is not None and tx.round is None:
            trouble = any(isinstance(c, Answer) and c.outcome in _TROUBLE for c in commands)
            self._on_round(tx, not trouble)
        return calls

    async def _save(self, live: _Live, save: Save) -> None:
        failpoints.reach("saving")
        if save.append:
            await self._store.append(live.gid, save.branches)
            return
        if save.deferred and self._coalesce and not self._overslept(live):
            live.pending.update((row.key, row) for row in save.branches)
            if live.flush is None:
                loop = asyncio.get_running_loop()
                live.flush = loop.call_later(DEFERRED_S, self._flush_later, live)
            return
        if live.flush is not None:
            live.flush.cancel()
            live.flush = None
        asked = self._clock.monotonic()
        if live.fence == 0:
            owner = "" if save.release else self._owner
            live.fence = await self._store.create(save.tx, owner=owner, lease_s=self._lease_s)
        else:
            rows = save.branches
            if live.pending:
                rows = tuple({**live.pending, **{row.key: row for row in rows}}.values())
            live.fence = await self._store.save(
                Change(
                    save.tx,
                    rows,
                    live.fence,
                    self._owner,
                    take=save.force or not live.held,
                    release=save.release,
                    force=save.force,
                    lease_s=self._lease_s,
                )
            )
            live.pending.clear()
        failpoints.reach("saved")
        if not live.held:
            live.since = asked
        live.held, live.until = not save.release, asked + self._lease_s
        if save.tx.status.terminal:
            logger.info(
                "transaction ended",
                gid=live.gid,
                trans_type=save.tx.trans_type.value,
                status=save.tx.status.value,
            )

    def _overslept(self, live: _Live) -> bool:
        """Whether the lease may have gone to somebody else without our hearing of it."""
        return self._clock.monotonic() >= live.until

    def _flush_later(self, live: _Live) -> None:
        live.flush = None
        if self._live.get(live.gid) is live:
            self._spawn(self._flush(live))

    async def _flush(self, live: _Live) -> None:
        """Write what waited long enough for another save to ride with."""
        async with live.lock:
            if live.pending and live.held and live.tx is not None:
                try:
                    await self._save(live, Save(live.tx))
                except (LostLease, StoreUnavailable) as error:
                    self._forget(live, error.message)

    async def _drive(self, live: _Live, calls: list[Call]) -> None:
        """Make ``calls``; an answer may bring the next one, which this task makes as well."""
        live.users += 1
        try:
            while calls:
                for other in calls[1:]:
                    self._spawn(self._drive(live, [other]))
                answered = await self._ask(live, calls[0])
                async with live.lock:
                    calls = await self._deliver(live, answered)
        except Exception:
            async with live.lock:
                self._forget(live, _UNEXPECTED)
            raise
        finally:
            self._leave(live)

    async def _ask(self, live: _Live, call: Call) -> Answered:
        tx = live.tx
        assert tx is not None
        limit = float(call.timeout) or self._request_timeout
        failpoints.reach("calling")
        answer = await self._caller.call(tx, call.branch, limit)
        failpoints.reach("called")
        if answer.result is not Result.SUCCESS:
            logger.warning(
                "branch did not succeed",
                gid=live.gid,
                branch=call.branch.branch_id,
                op=call.branch.op,
                url=call.branch.url,
                result=answer.result.value,
                text=answer.text[:MAX_LOGGED_CHARS],
            )
        return Answered(
            self._clock.now_ms(),
            call.branch.key,
            answer.result,
            answer.text,
            answer.code,
            self._rng.random(),
        )

    async def _deliver(self, live: _Live, event: Answered | Woken) -> list[Call]:
        """Step with an answer of a branch, or because the transaction is due."""
        if self._live.get(live.gid) is not live or live.tx is None:
            return []  # the lease was lost meanwhile: somebody else asks this branch again
        tx, commands = step(live.tx, event, self._policy)
        try:
            return await self._run(live, tx, commands)
        except (LostLease, StoreUnavailable) as error:
            self._forget(live, error.message)
            return []

    async def _wake(self, held: Held, asked: float) -> None:
        gid = held.tx.gid
        while True:
            live = self._enter(gid)
            try:
                async with live.lock:
                    if live.tx is not None and live.fence > held.fence:
                        return  # taken once more since it was claimed
                    running = live.tx is not None and live.tx.round is not None
                    if running and live.fence + 1 < held.fence:
                        # what runs here is older than what is stored
                        self._forget(live, "another coordinator went on with it")
                    if self._live.get(gid) is not live:
                        continue
                    live.fence, live.held, live.since = held.fence, True, self._clock.monotonic()
                    live.until = asked + self._lease_s
                    self._claimed.add(live)
                    if not running:
                        live.tx = held.tx
                    try:
                        calls = await self._deliver(live, Woken(self._clock.now_ms()))
                    except Exception:
                        self._forget(live, _UNEXPECTED)
                        raise
                if calls:
                    self._spawn(self._drive(live, calls))
            finally:
                self._leave(live)
            return

    async def _give_back(self, live: _Live) -> None:
        """Free the lease of a transaction that nothing is going on with in this process."""
        if live.flush is not None:
            live.flush.cancel()
            live.flush = None
        if live.held and live.tx is not None:
            try:
                tx = changed(live.tx, round=None)
                # every row: a save that was cut short may not have written those that it brought
                await self._save(live, Save(tx, tx.branches, release=True))
            except (LostLease, StoreUnavailable) as error:
                logger.warning("lease not given back", gid=live.gid, reason=error.message)
        self._forget(live, "the coordinator is stopping")

    def _forget(self, live: _Live, why: str) -> None:
        """Leave the transaction to whoever holds its lease; those who wait here may ask later."""
        if self._live.get(live.gid) is live:
            del self._live[live.gid]
            self._claimed.discard(live)
        live.held = False
        live.tx = None
        self._answer(live, _ask_later(live.gid, why))

    def _answer(self, live: _Live, answer: Answer) -> None:
        waiting, live.waiting = live.waiting, []
        failpoints.reach("answering")
        for future in waiting:
            if not future.done():
                future.set_result(answer)

    def _enter(self, gid: str) -> _Live:
        live = self._live.get(gid)
        if live is None:
            live = self._live[gid] = _Live(gid)
        live.users += 1
        return live

    def _leave(self, live: _Live) -> None:
        live.users -= 1
        idle = live.users == 0 and (live.tx is None or live.tx.round is None)
        if idle and self._live.get(live.gid) is live:
            del self._live[live.gid]
            self._claimed.discard(live)
            self._remember(live)
            if live.waiting:  # for a round that another coordinator ended
                self._answer(live, _ask_later(live.gid, "the round was ended elsewhere"))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)  # awaited or cancelled in aclose
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a round failed unexpectedly and is taken up again later", exc_info=error)


def _reply_in(commands: Sequence[Command]) -> Reply | None:
    for command in commands:
        if isinstance(command, Reply):
            return command
    return None


def _saves(commands: Sequence[Command]) -> bool:
    return any(isinstance(command, Save) for command in commands)


def _ask_later(gid: str, why: str) -> Answer:
    return Answer(Outcome.UNKNOWN, f"gid {gid}: {why}; the transaction goes on, ask later")


def _looks_new(event: ApiEvent) -> bool:
    """Whether it is worth trying to create the transaction before looking for it."""
    match event:
        case Submitted():
            return bool(event.request.branches)
        case Prepared():
            return True  # of tcc, xa and workflow, which have no branches yet
        case _:
            return False
