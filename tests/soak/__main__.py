"""Soak: millions of calls of the lean engine over 1,000 connections with ill-treated peers.

Two servers in processes of their own, this process is the client. ``steady`` lives through the
run and is frozen now and then (SIGSTOP, SIGCONT); ``shaky`` is told to stop, killed (kill -9) and
frozen, and comes back on its port. A quarter of the connections go through :mod:`tests.soak.proxy`.

Each call carries an id and ends in :mod:`tests.soak.ledger`. What must hold:

- every call has exactly one outcome, no later than its deadline and :data:`PATIENCE_S`;
- no handler began twice with an id, whatever was sent again underneath;
- what the engine called unsent was not begun; what succeeded was;
- every answer belongs to its request (id and checksum);
- memory, descriptors, tasks and connections of both sides are what they were, after warming up.

Run: ``python -m tests.soak [--calls N] [--connections N] [--seconds S] [--seed N] [--tls]
[--asyncio]``
"""

import argparse
import asyncio
import gc
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import ClientTls, Limits, RpcFailed
from kit.transport.lean import LeanConnection
from tests.soak.ledger import UNSENT, Bytes, judged
from tests.soak.peer import COUNT, ID_BYTES, KEEPALIVE, anonymous_kb, answer, counted, descriptors

DEADLINE_S = 10.0
PATIENCE_S = 60.0
BURST, AT_ONCE = 80, 40
"""Most calls in a burst, and bursts at once on each way: all connections are open, this many are at
work. A way whose server is frozen does not hold up the others.
"""
WARM = 0.2
"""The share of the calls after which memory must no longer grow."""
GROWTH, SLACK_KB, SLACK_BLOCKS = 1.15, 16_000, 20_000
"""Resident memory also grows by what the allocator keeps for later; blocks are what is in use."""
WEATHER = ("stop", "kill", "freeze shaky", "freeze steady", "calm")
COUNTED = ("fds", "tasks", "connections", "running")
CERTIFICATE = ("chain.pem", "key.pem")
KINDS = ("echo", "echo", "echo", "echo", "large", "fail", "cancel", "late", "count", "talk")
"""The last call of a burst is one of these, all others are ``echo``."""


@dataclass
class Run:
    """One run and what was seen in it."""

    calls: int
    told: Any
    dice: random.Random
    loop: str
    folder: Path
    tls: ClientTls | None = None
    issued: int = 0
    done: int = 0
    wrong: list[str] = field(default_factory=list)
    weather: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, int]] = field(default_factory=list)
    lag: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, number: int, outcome: int) -> None:
        """The outcome of a call, once."""
        if self.told[number]:
            self.wrong.append(f"call {number} has two outcomes")
        self.told[number] = outcome
        self.done += 1


# The client.


async def work(run: Run, to: LeanConnection, turns: asyncio.Semaphore, dice: random.Random) -> None:
    """Bursts of calls on one connection until all ids are given out."""
    refused = True  # whether the peer listens is found out by one call, or ids would be burnt
    while True:
        async with turns:
            if run.issued == run.calls or run.over.is_set():
                return
            refused = await burst(run, to, dice, only_one=refused)
        if refused:
            await asyncio.sleep(dice.uniform(0.1, 0.5))


async def burst(run: Run, to: LeanConnection, dice: random.Random, *, only_one: bool) -> bool:
    """Some calls at once; whether one of them was not even sent."""
    size = 1 if only_one else min(dice.randint(1, BURST), run.calls - run.issued)
    first, run.issued = run.issued, run.issued + size
    calls = [one(run, to, "echo", first + n, dice) for n in range(size - 1)]
    calls.append(one(run, to, dice.choice(KINDS), first + size - 1, dice))
    try:
        async with asyncio.timeout(DEADLINE_S + PATIENCE_S):
            return any(await asyncio.gather(*calls))
    except TimeoutError:
        run.wrong.append(f"calls {first}.. were not answered in time")
    except Exception as exc:
        run.wrong.append(f"calls {first}..: {exc!r}")
    return False


async def one(run: Run, to: LeanConnection, kind: str, number: int, dice: random.Random) -> bool:
    """One call; whether it was not even sent."""
    call_id = number.to_bytes(ID_BYTES, "big")
    size = dice.choice((20_000, 70_000, 300_000)) if kind == "large" else dice.randrange(120)
    request = call_id + dice.randbytes(size)
    deadline = time.monotonic() + (dice.uniform(0.02, 0.1) if kind == "late" else DEADLINE_S)
    try:
        match kind:
            case "echo" | "large":
                good = await echoed(to, "/soak.Soak/Echo", request, deadline)
            case "late":
                good = await echoed(to, "/soak.Soak/Slow", request, deadline)
            case "fail":
                await to.unary("/soak.Soak/Fail", request, (), deadline)
                good = False
            case "cancel":
                good = await cancelled(to, request, deadline, dice)
            case "count":
                good = await count(to, request, deadline)
            case _:
                good = await talk(to, request, deadline)
    except RpcFailed as failure:
        if failure.status is GrpcCode.NOT_FOUND:
            text = f"nothing at {number} \u20ac"
            details = (("grpc-status-details-bin", call_id),)
            if kind != "fail" or failure.message != text or tuple(failure.trailers) != details:
                run.wrong.append(f"call {number} ({kind}) failed with another's failure: {failure}")
        run.note(number, int(failure.status) + 1 | (UNSENT if failure.unsent else 0))
        return failure.unsent
    except asyncio.CancelledError:
        if kind != "cancel":
            raise
        run.note(number, int(GrpcCode.CANCELLED) + 1)
        return False
    if not good:
        run.wrong.append(f"call {number} ({kind}) has an answer that is not its own")
    run.note(number, 1)
    return False


async def echoed(to: LeanConnection, method: str, request: bytes, deadline: float) -> bool:
    reply = await to.unary(method, request, (), deadline)
    return reply.message == answer(request)


async def cancelled(
    to: LeanConnection, request: bytes, deadline: float, dice: random.Random
) -> bool:
    task = asyncio.create_task(echoed(to, "/soak.Soak/Slow", request, deadline))
    try:
        await asyncio.wait({task}, timeout=dice.uniform(0, 0.06))
    finally:
        task.cancel()
    return await task


async def count(to: LeanConnection, request: bytes, deadline: float) -> bool:
    stream = to.stream("/soak.Soak/Count", (), deadline)
    await stream.write(request)
    await stream.done_writing()
    got = []
    while (message := await stream.read()) is not None:
        got.append(message)
    return got == [counted(request[:ID_BYTES], number) for number in range(COUNT)]


async def talk(to: LeanConnection, request: bytes, deadline: float) -> bool:
    stream = to.stream("/soak.Soak/Talk", (), deadline)
    good = True
    for turn in range(3):
        message = request + bytes((turn,))
        await stream.write(message)
        good = good and await stream.read() == answer(message)
    await stream.done_writing()
    return good and await stream.read() is None


# The peers.


@asynccontextmanager
async def process(*command: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[int]]]:
    """A process of this project, and the ports that its first line names; gone afterwards."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, stdout=asyncio.subprocess.PIPE
    )
    assert started.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = await started.stdout.readline()
        yield started, [int(port) for port in line.split()]
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def server(run: Run, port: int = 0) -> Any:
    where = str(run.folder / "ran")
    certificate = [str(run.folder / name) for name in CERTIFICATE] if run.tls else []
    return process("tests.soak.peer", str(port), where, str(run.calls), run.loop, *certificate)


def trusted(folder: Path) -> ClientTls:
    """What trusts the certificate that it makes for the servers."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    chain, key = (folder / name for name in CERTIFICATE)
    chain.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    return ClientTls(authority.cert_pem.bytes())


async def ill_treat(run: Run, steady: int, every: float, ready: asyncio.Future[int]) -> None:
    """Own ``shaky``, and do to both what :data:`WEATHER` says, in turn."""
    port, turn = 0, 0
    while not run.over.is_set():
        async with await server(run, port) as (shaky, ports):
            [port] = ports
            if not ready.done():
                ready.set_result(port)
            alive = True
            while alive and not run.over.is_set():
                await asyncio.sleep(every)
                what = WEATHER[turn % len(WEATHER)]
                turn += 1
                run.weather[what] += 1
                match what:
                    case "stop":
                        shaky.terminate()
                        async with asyncio.timeout(PATIENCE_S):
                            await shaky.wait()
                        if shaky.returncode:
                            run.wrong.append(f"a server ended with {shaky.returncode}")
                        alive = False
                    case "kill":
                        alive = False
                    case "freeze shaky" | "freeze steady":
                        pid = shaky.pid if what == "freeze shaky" else steady
                        os.kill(pid, signal.SIGSTOP)
                        await asyncio.sleep(min(run.dice.uniform(0.1, 6.0), every))
                        os.kill(pid, signal.SIGCONT)


async def report(to: LeanConnection) -> dict[str, int]:
    """What the steady server holds; asked until it answers."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                reply = await to.unary("/soak.Soak/Report", b"", (), time.monotonic() + 2)
                held: dict[str, int] = json.loads(reply.message)
                return held
            except RpcFailed:
                await asyncio.sleep(0.1)


# The run.


async def watch(run: Run, to: LeanConnection, every: float, limit: float) -> None:
    """Sample memory and show how far the run is; end it when its time is over."""
    started, before, took_before = time.monotonic(), 0, 0.0
    while not run.over.is_set():
        run.lag = 0.0
        for _ in range(10):
            before_sleep = time.monotonic()
            await asyncio.sleep(every / 10)
            run.lag = max(run.lag, time.monotonic() - before_sleep - every / 10)
        try:
            held = await report(to)
        except TimeoutError:
            run.wrong.append(f"the steady server says nothing for {PATIENCE_S} s")
            run.over.set()
            return
        gc.collect()
        sample = {
            "done": run.done,
            "client_kb": anonymous_kb(),
            "client_fds": descriptors(),
            "server_kb": held["rss_kb"],
            "server_fds": held["fds"],
            "client_blocks": sys.getallocatedblocks(),
            "server_blocks": held["blocks"],
        }
        run.samples.append(sample)
        took = time.monotonic() - started
        rate = (run.done - before) / (took - took_before)
        before, took_before = run.done, took
        print(
            f"{took:7.0f} s {run.done:>10,} of {run.calls:,} calls, {rate:7,.0f}/s,"
            f" client {sample['client_kb']:,} KiB {sample['client_fds']} files,"
            f" server {sample['server_kb']:,} KiB {sample['server_fds']} files,"
            f" {run.weather.total()} blows, {run.lag:.1f} s behind, {len(run.wrong)} wrong",
            flush=True,
        )
        if took > limit:
            run.over.set()


async def soak(options: argparse.Namespace, loop: str, folder: Path) -> list[str]:
    """The run; gives what went wrong. One that SIGTERM or SIGINT ends early is judged as well."""
    dice = random.Random(options.seed)
    base_tasks = len(asyncio.all_tasks())
    started = time.monotonic()
    with Bytes(folder / "told", options.calls) as told, Bytes(folder / "ran", options.calls) as ran:
        tls = trusted(folder) if options.tls else None
        run = Run(options.calls, told, dice, loop, folder, tls)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, run.over.set)
        async with await server(run) as (steady, [steady_port]):
            asking = connection(steady_port, tls)
            ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            blows = asyncio.create_task(ill_treat(run, steady.pid, options.every, ready))
            shaky_port = await ready
            mean = str(4 * options.every)
            ports = (str(steady_port), str(shaky_port))
            async with process("tests.soak.proxy", str(options.seed), mean, *ports) as (_, bad):
                first = await report(asking)
                base_fds = descriptors()
                ways = (*[steady_port, shaky_port] * 3, *bad)
                turns = {port: asyncio.Semaphore(AT_ONCE) for port in ways}
                every = max(options.every, 1.0)
                watching = asyncio.create_task(watch(run, asking, every, options.seconds))
                connections = [
                    (connection(ways[n % len(ways)], tls), turns[ways[n % len(ways)]])
                    for n in range(options.connections)
                ]
                await asyncio.gather(
                    *(
                        work(run, to, turn, random.Random(dice.randrange(2**32)))
                        for to, turn in connections
                    )
                )
                run.over.set()
                await asyncio.gather(blows, watching)
                took = time.monotonic() - started
                gc.collect()
                await asyncio.gather(*(to.close() for to, _ in connections))
                last = await settled(asking, first)
                tasks, fds = len(asyncio.all_tasks()) - base_tasks, descriptors()
            await asking.close()
        outcomes, wrong = judged(ran, told, run.issued)
        wrong += run.wrong[:20]
    wrong += flat(run)
    for what, was, now in (
        ("tasks of the client", 0, tasks),
        ("descriptors of the client", base_fds, fds),
        *((f"{key} of the server", first[key], last[key]) for key in COUNTED),
    ):
        if now > was + (2 if "descriptors" in what or "fds" in what else 0):
            wrong.append(f"{now} {what} at the end, {was} at the beginning")
    names = {
        kind: ("unsent " if kind & UNSENT else "") + GrpcCode((kind & ~UNSENT) - 1).name
        for kind in outcomes
        if kind
    }
    way = f"{loop}, TLS" if tls else loop
    print(f"{run.done:,} calls in {took:.0f} s on {options.connections:,} connections, {way}")
    print(
        "outcomes: " + ", ".join(f"{names.get(k, 'none')} {n:,}" for k, n in outcomes.most_common())
    )
    print("blows: " + ", ".join(f"{name} {n}" for name, n in run.weather.items()))
    if outcomes[1] < run.issued * 0.5:
        wrong.append(f"only {outcomes[1]:,} of {run.issued:,} calls succeeded")
    return wrong


def connection(port: int, tls: ClientTls | None) -> LeanConnection:
    return LeanConnection(
        f"127.0.0.1:{port}", authority=None, tls=tls, limits=Limits(), keepalive=KEEPALIVE
    )


async def settled(to: LeanConnection, first: dict[str, int]) -> dict[str, int]:
    """What the server holds when it has found out that all others are gone, half-open ones too."""
    end = time.monotonic() + 3 * PATIENCE_S
    while True:
        last = await report(to)
        keys = ("connections", "running", "tasks")
        if all(last[key] <= first[key] for key in keys) or time.monotonic() > end:
            return last
        await asyncio.sleep(0.2)


def flat(run: Run) -> list[str]:
    """What grew although the warm-up was over."""
    warm = [sample for sample in run.samples if sample["done"] >= run.calls * WARM]
    if len(warm) < 4:
        return []
    wrong = []
    half = max(len(warm) // 4, 1)
    for key, slack in (
        ("client_kb", SLACK_KB),
        ("server_kb", SLACK_KB),
        ("client_blocks", SLACK_BLOCKS),
        ("server_blocks", SLACK_BLOCKS),
    ):
        early = max(sample[key] for sample in warm[:half])
        late = min(sample[key] for sample in warm[-half:])
        print(f"{key}: {early:,} after the warm-up, {late:,} at the end")
        if late > early * GROWTH + slack:
            wrong.append(f"{key} grew from {early:,} to {late:,}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=4 * 3600.0, help="give up after so long")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two blows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tls", action="store_true", help="on every connection")
    parser.add_argument("--asyncio", action="store_true", help="its own loop, not uvloop's")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loop = "asyncio" if options.asyncio else "uvloop"
    with tempfile.TemporaryDirectory(prefix="kit-soak-") as folder:
        if loop == "uvloop":
            import uvloop

            wrong: list[str] = uvloop.run(soak(options, loop, Path(folder)))
        else:
            wrong = asyncio.run(soak(options, loop, Path(folder)))
    print(*wrong or ("all is as it should be",), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
