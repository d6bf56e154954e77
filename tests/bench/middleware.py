"""What each middleware costs a call by itself, in microseconds.

A handler that does nothing is called many times, bare and with one middleware around it, in turns;
the difference of the two is the middleware's own. Headers, payload and peer are those of a small
unary call; nothing travels, so that the noise of sockets is left out (``kit_call`` measures those).

Run: ``python -m tests.bench.middleware [--calls 5000] [--rounds 9]``
"""

import argparse
import asyncio
import io
import statistics
import sys
import time

from opentelemetry.sdk.trace import TracerProvider

import kit.log
from api.trans.v1 import trans_pb2
from kit.metadata import Metadata
from kit.middleware import jwt, logging, metadata, tracing
from kit.middleware.circuitbreaker import circuitbreaker
from kit.middleware.metrics import Metrics
from kit.middleware.ratelimit import ratelimit
from kit.middleware.recovery import recovery
from kit.middleware.retry import retry
from kit.middleware.selector import select
from kit.middleware.timeout import timeout
from kit.middleware.validate import validate
from kit.resilience import TokenBucket
from kit.transport import CallInfo, Handler, Kind, Middleware, call_info, chain

OPERATION = "/api.trans.v1.Trans/TransOut"
KEY = "a secret that is long enough"
REQUEST = trans_pb2.AdjustInfo(Amount=30, UserID=1)
REPLY = trans_pb2.Response()


async def nothing(_request: object) -> trans_pb2.Response:
    return REPLY


def middleware() -> dict[str, tuple[str, Middleware]]:
    """By name: the side it is on, and itself with its defaults."""
    provider = TracerProvider()
    metrics = Metrics()
    return {
        "recovery": ("server", recovery()),
        "timeout": ("server", timeout()),
        "metadata.server": ("server", metadata.server()),
        "metadata.client": ("client", metadata.client()),
        "metrics.server": ("server", metrics.server()),
        "metrics.client": ("client", metrics.client()),
        "logging.server": ("server", logging.server()),
        "logging.server, payloads": ("server", logging.server(payloads=True)),
        "tracing.server, no SDK": ("server", tracing.server()),
        "tracing.client, no SDK": ("client", tracing.client(service="bank")),
        "tracing.server, SDK": ("server", tracing.server(provider=provider)),
        "tracing.client, SDK": ("client", tracing.client(service="bank", provider=provider)),
        "validate, no rules": ("server", validate()),
        "jwt.server, HS256": ("server", jwt.server(KEY)),
        "jwt.client, HS256": ("client", jwt.client(KEY, lambda: {"sub": "7"})),
        "ratelimit, BBR": ("server", ratelimit()),
        "ratelimit, bucket": ("server", ratelimit(TokenBucket(1e9, 1e9))),
        "circuitbreaker": ("client", circuitbreaker()),
        "retry": ("client", retry()),
        "selector, chosen": ("server", select(paths=[OPERATION])),
        "selector, not chosen": ("server", select(recovery(), paths=["/other"])),
    }


async def token() -> str:
    """The header that a client would send."""
    info = CallInfo(Kind.GRPC, "client", OPERATION)
    reset = call_info.set(info)
    await jwt.client(KEY, lambda: {"sub": "7"})(nothing)(REQUEST)
    call_info.reset(reset)
    return info.request_headers.get("authorization")


async def spend(handler: Handler, side: str, headers: list[tuple[str, str]], calls: int) -> float:
    """Seconds of ``calls`` calls, the making of their call infos left out."""
    total = 0.0
    for _ in range(calls):
        info = CallInfo(
            Kind.GRPC,
            side,
            OPERATION,
            "grpc://127.0.0.1:9000",
            Metadata(headers),
            deadline=time.monotonic() + 1,
            limit=1.0,
            limit_side="server",
            peer="127.0.0.1:40000",
        )
        reset = call_info.set(info)
        started = time.perf_counter()
        await handler(REQUEST)
        total += time.perf_counter() - started
        call_info.reset(reset)
    return total


async def measure(calls: int, rounds: int) -> None:
    """Print the table."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    incoming = [
        ("user-agent", "grpc-go/1.80"),
        ("traceparent", trace),
        ("x-md-global-user", "7"),
        ("authorization", await token()),
    ]
    found = middleware()
    handlers: dict[str, tuple[str, Handler]] = {
        name: (side, layer(nothing)) for name, (side, layer) in found.items()
    }
    defaults = ("recovery", "metadata.server", "timeout")
    handlers["the three defaults of a server"] = (
        "server",
        chain([found[name][1] for name in defaults])(nothing),
    )
    costs: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, (side, handler) in handlers.items():
            headers = incoming if side == "server" else []
            bare = await spend(nothing, side, headers, calls)
            spent = await spend(handler, side, headers, calls)
            costs.setdefault(name, []).append((spent - bare) / calls * 1e6)
    print(f"{'middleware':<32} {'us a call':>9}")
    for name, each in costs.items():
        print(f"{name:<32} {statistics.median(each):>9.2f}")


def quietly(calls: int, rounds: int) -> None:
    """Measure with log lines that go nowhere."""
    kit.log.configure(stream=io.StringIO())
    asyncio.run(measure(calls, rounds))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=5_000, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    quietly(options.calls, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
