"""What the kit costs as a framework: calls, middleware, a pick of discovery, an idle service.

- a unary gRPC call through the default chain beside bare grpc.aio (``kit_call``);
- a JSON call over HTTP beside bare Starlette (``http_call``);
- each middleware by itself (``middleware``);
- the pick of a node for a call and its end, by each balancer among 25 nodes, as a client with a
  registry does it; CPU time of one thread;
- the memory of a service that waits for its first call: gRPC, HTTP with its document, admin port,
  metrics and all middleware, announced in a registry; resident memory by ``/proc``.

Run: ``python -m tests.bench.kit_figures [--seconds 1] [--only pick,memory]``
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from kit.registry import ServiceInstance
from kit.selector import Balancer, Node, Selector
from kit.selector.p2c import P2C
from kit.selector.random import RandomBalancer
from kit.selector.wrr import WeightedRoundRobin
from kit.transport import CallInfo, Kind
from kit.transport.grpc.pool import Pool
from kit.transport.grpc.resolver import SUBSET, nodes_of
from kit.transport.grpc.target import parse_target
from tests.bench import http_call, kit_call, middleware

PICK_US = 5.0
IDLE_MB = 80.0
SECTIONS = ("grpc", "http", "middleware", "pick", "memory")

SERVICE = """
import asyncio
from api.trans.v1.trans_pb2_grpc import TransServicer, add_TransServicer_to_server
from kit import App
from kit.app import AdminServer
from kit.middleware import logging, metadata, tracing
from kit.middleware.metrics import Metrics
from kit.middleware.ratelimit import ratelimit
from kit.middleware.recovery import recovery
from kit.middleware.timeout import timeout
from kit.registry.memory import MemoryRegistry
from kit.transport.grpc import GrpcServer
from kit.transport.http import HttpServer

async def hello(request):
    return {"hello": request.path_params["name"]}

async def main():
    metrics = Metrics()
    chain = [recovery(), tracing.server(), logging.server(), metrics.server(), metadata.server(),
             ratelimit(), timeout()]
    rpc = GrpcServer(address="127.0.0.1:0", middleware=chain)
    add_TransServicer_to_server(TransServicer(), rpc.services)
    http = HttpServer(address="127.0.0.1:0", middleware=chain, openapi=True)
    http.get("/hello/{name}", hello)
    admin = AdminServer(":0", metrics=metrics)
    async def ready():
        for name, url in (("grpc", rpc.endpoint), ("http", http.endpoint), ("admin", admin.url)):
            print(name, url.rpartition(":")[2], flush=True)
    await App(name="idle", servers=[rpc, http, admin], registrar=MemoryRegistry(),
              after_start=[ready]).run()

asyncio.run(main())
"""


class _Nowhere:
    """A connection that nothing is sent over."""

    def ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


def pool(balancer: Balancer) -> Pool:
    """A client's pool with the nodes that a registry gave it."""
    instances = [
        ServiceInstance(f"i{n}", "trans", "v1", {}, (f"grpc://10.0.0.{n}:9000",))
        for n in range(SUBSET)
    ]
    made = Pool(
        parse_target("discovery:///trans"),
        connect=lambda _address: _Nowhere(),  # type: ignore[arg-type,return-value]
        selector=Selector(balancer),
        first_answer=1.0,
    )
    nodes: list[Node] = nodes_of(instances, "grpc")
    made.push(tuple(nodes))
    return made


def pick_us(balancer: Balancer, picks: int, rounds: int) -> float:
    """CPU µs of one pick and the end of its call."""
    chosen = pool(balancer)
    info = CallInfo(Kind.GRPC, "client", "/trans/Out")
    costs = []
    for _ in range(rounds):
        started = time.thread_time()
        for _ in range(picks):
            chosen.lease(info).end(None)
        costs.append((time.thread_time() - started) / picks * 1e6)
    return statistics.median(costs)


def picks() -> bool:
    """Print the table; whether every balancer stays within the figure."""
    print(f"{'pick among 25 nodes, and its end':<34} us")
    worst = 0.0
    for balancer in (RandomBalancer(), WeightedRoundRobin(), P2C()):
        cost = pick_us(balancer, 20_000, 7)
        worst = max(worst, cost)
        print(f"{type(balancer).__name__:<34} {cost:.2f}")
    print(f"slowest = {worst:.2f} us, to reach: {PICK_US:g} ({_verdict(worst <= PICK_US)})")
    return worst <= PICK_US


def idle_mb() -> float:
    """Resident memory of a service that has started and done nothing since."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith(b"grpc "):
            raise RuntimeError("the service did not start")
        pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def memory() -> bool:
    """Print the figure; whether it is reached."""
    used = idle_mb()
    print(
        f"memory of an idle service = {used:.0f} MB, to reach: {IDLE_MB:g} "
        f"({_verdict(used <= IDLE_MB)})"
    )
    return used <= IDLE_MB


def calls(seconds: float) -> bool:
    """The gRPC table."""
    ratio = asyncio.run(kit_call.measure(seconds, 3))
    print(f"kit / bare = {ratio:.2f}, to reach: {kit_call.REACH} ({_verdict(ratio <= 1.5)})")
    return ratio <= kit_call.REACH


def http_calls(seconds: float) -> bool:
    """The HTTP table."""
    ratio = asyncio.run(http_call.measure(max(1_000, int(3_000 * seconds)), 4))
    print(f"kit / bare = {ratio:.2f}, to reach: {http_call.REACH} ({_verdict(ratio <= 1.5)})")
    return ratio <= http_call.REACH


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement of calls")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"--only: {sorted(unknown)[0]!r} is none of {', '.join(SECTIONS)}")
    reached = []
    for number, name in enumerate(name for name in SECTIONS if name in wanted):
        if number:
            print()
        if name == "grpc":
            reached.append(calls(options.seconds))
        elif name == "http":
            reached.append(http_calls(options.seconds))
        elif name == "middleware":
            middleware.quietly(2_000, 7)
        else:
            reached.append(picks() if name == "pick" else memory())
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
