"""Jobs and consumers: when they run, who runs them, how they end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from kit.app import App, Consumer, Every, Job, Jobs, Run, Term, current_app, current_run
from kit.resilience import BackOff
from kit.testing.clock import ManualClock


class Office:
    """A leader by hand."""

    def __init__(self) -> None:
        self.term: Term | None = None
        self.campaigning = False

    def elect(self, number: int) -> None:
        self.term = Term(number)

    def lose(self) -> None:
        term, self.term = self.term, None
        assert term is not None
        term.ended.set()

    async def campaign(self) -> None:
        self.campaigning = True
        try:
            await asyncio.Event().wait()
        finally:
            self.campaigning = False


@asynccontextmanager
async def serving(server: Jobs | Consumer[int]) -> AsyncIterator[asyncio.Task[None]]:
    await server.listen()
    task = asyncio.create_task(server.serve())
    await settle()
    try:
        yield task
    finally:
        await server.stop(0)
        await task


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def tick(clock: ManualClock, seconds: float) -> None:
    clock.advance(seconds)
    await settle()


START_S = 1_700_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start_ms=START_S * 1000)


class TestJobs:
    async def test_a_job_runs_each_time_it_is_due(self, clock: ManualClock) -> None:
        runs: list[Run | None] = []

        async def note() -> None:
            runs.append(current_run())

        async with serving(Jobs(Job("note", note, Every(10)), clock=clock)):
            await tick(clock, 9)
            assert runs == []
            await tick(clock, 1)
            await tick(clock, 10)
        assert runs == [Run("note", START_S + 10, None), Run("note", START_S + 20, None)]
        assert current_run() is None

    async def test_what_is_due_while_it_runs_is_left_out(self, clock: ManualClock) -> None:
        runs: list[float] = []
        gate = asyncio.Event()

        async def slow() -> None:
            run = current_run()
            assert run is not None
            runs.append(run.due - START_S)
            await gate.wait()

        async with serving(Jobs(Job("slow", slow, Every(10)), clock=clock)):
            await tick(clock, 10)
            await tick(clock, 35)
            gate.set()
            await settle()
            assert runs == [10]
            await tick(clock, 5)
            assert runs == [10, 50]

    async def test_a_run_that_fails_is_told_and_the_next_one_comes(
        self, clock: ManualClock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs: list[int] = []

        async def fail() -> None:
            runs.append(1)
            raise LookupError("no such table")

        async with serving(Jobs(Job("fail", fail, Every(10)), clock=clock)):
            await tick(clock, 10)
            await tick(clock, 10)
        assert len(runs) == 2
        assert "ERROR msg=[jobs] fail failed" in capsys.readouterr().err

    async def test_a_run_is_cancelled_at_its_timeout(
        self, clock: ManualClock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        async with serving(Jobs(Job("hang", hang, Every(10), timeout=0.01), clock=clock)):
            await tick(clock, 10)
            await asyncio.sleep(0.05)
        assert "[jobs] hang was cancelled after 0.01 s" in capsys.readouterr().err

    async def test_only_the_leader_works_except_where_everybody_has_to(
        self, clock: ManualClock
    ) -> None:
        runs: list[tuple[str, int]] = []

        def noting(name: str) -> Callable[[], Awaitable[None]]:
            async def note() -> None:
                run = current_run()
                assert run is not None
                runs.append((name, run.term.number if run.term else 0))

            return note

        office = Office()
        jobs = Jobs(
            Job("one", noting("one"), Every(10)),
            Job("all", noting("all"), Every(10), everywhere=True),
            leader=office,
            clock=clock,
        )
        async with serving(jobs):
            assert office.campaigning
            await tick(clock, 10)
            assert runs == [("all", 0)]
            office.elect(7)
            await tick(clock, 10)
            assert sorted(runs) == [("all", 0), ("all", 0), ("one", 7)]
        assert not office.campaigning

    async def test_losing_the_lead_cancels_what_needed_it(
        self, clock: ManualClock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        office = Office()
        office.elect(1)
        async with serving(Jobs(Job("work", work, Every(10)), leader=office, clock=clock)):
            await tick(clock, 10)
            office.lose()
            await settle()
            assert ended == ["cancelled"]
        assert "this instance leads no more" in capsys.readouterr().err

    async def test_a_stop_lets_a_run_end_and_keeps_the_lead_until_then(
        self, clock: ManualClock
    ) -> None:
        gate, office = asyncio.Event(), Office()
        office.elect(1)
        leading: list[bool] = []

        async def work() -> None:
            await gate.wait()
            leading.append(office.campaigning)

        jobs = Jobs(Job("work", work, Every(10)), leader=office, clock=clock)
        async with serving(jobs) as task:
            await tick(clock, 10)
            stopping = asyncio.create_task(jobs.stop(5))
            await settle()
            assert not task.done()
            gate.set()
            await stopping
            await task
        assert leading == [True]
        assert not office.campaigning

    async def test_a_run_that_does_not_end_is_cut_after_the_grace(
        self, clock: ManualClock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        jobs = Jobs(Job("hang", hang, Every(10)), clock=clock)
        async with serving(jobs):
            await tick(clock, 10)
            await jobs.stop(0.01)
        assert "[jobs] hang does not end in time" in capsys.readouterr().err

    def test_two_jobs_of_one_name_are_refused(self) -> None:
        async def nothing() -> None: ...

        job = Job("a", nothing, Every(1))
        with pytest.raises(ValueError, match="a is there twice"):
            Jobs(job, job)

    async def test_jobs_live_in_an_app_like_any_server(self) -> None:
        async def end() -> None:
            app = current_app()
            assert app is not None
            app.stop()

        await App(servers=[Jobs(Job("end", end, Every(0.02)))], signals=()).run()


class TestConsumer:
    async def test_messages_are_handled_side_by_side_and_no_more_are_taken_than_that(
        self,
    ) -> None:
        taken, handled = [], []
        gate = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            for number in range(5):
                taken.append(number)
                yield number
            await asyncio.Event().wait()

        async def handle(message: int) -> None:
            await gate.wait()
            handled.append(message)

        async with serving(Consumer("c", source, handle, concurrency=2)):
            assert taken == [0, 1]
            gate.set()
            await settle()
            assert handled == [0, 1, 2, 3, 4]

    async def test_a_message_that_fails_does_not_end_the_others(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        handled = []

        async def source() -> AsyncIterator[int]:
            for number in range(3):
                yield number
            await asyncio.Event().wait()

        async def handle(message: int) -> None:
            if message == 1:
                raise LookupError("secret")
            handled.append(message)

        async with serving(Consumer("orders", source, handle)):
            await settle()
        assert handled == [0, 2]
        assert "[consumer] orders: a message failed" in capsys.readouterr().err

    async def test_a_source_that_fails_is_opened_again_and_told_once(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        opened, handled = [], []

        async def source() -> AsyncIterator[int]:
            opened.append(1)
            if len(opened) < 4:
                raise ConnectionError("broker away")
            yield 7
            await asyncio.Event().wait()

        async def handle(message: int) -> None:
            handled.append(message)

        async with serving(Consumer("c", source, handle, backoff=BackOff(0, 0))):
            await settle()
            await settle()
        assert (len(opened), handled) == (4, [7])
        assert capsys.readouterr().err.count("its source failed") == 1

    async def test_a_stop_takes_no_more_and_lets_what_runs_end(self) -> None:
        gate, handled, closed = asyncio.Event(), [], []

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                closed.append(1)

        async def handle(message: int) -> None:
            await gate.wait()
            handled.append(message)

        consumer = Consumer("c", source, handle)
        async with serving(consumer):
            stopping = asyncio.create_task(consumer.stop(5))
            await settle()
            assert (closed, handled) == ([1], [])
            gate.set()
            await stopping
        assert handled == [1]

    async def test_what_does_not_end_in_time_is_cut(self) -> None:
        async def source() -> AsyncIterator[int]:
            yield 1

        async def hang(_message: int) -> None:
            await asyncio.Event().wait()

        consumer = Consumer("c", source, hang)
        async with serving(consumer) as task:
            await consumer.stop(0.01)
            await task

    def test_a_consumer_that_handles_nothing_is_refused(self) -> None:
        async def source() -> AsyncIterator[int]:
            yield 1

        async def handle(_message: int) -> None: ...

        with pytest.raises(ValueError, match="concurrency 0"):
            Consumer("c", source, handle, concurrency=0)
