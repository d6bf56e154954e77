"""Memory of idle connections of the lean engine: one process serves them, one holds them.

Each connection has carried one call. The figure is resident memory that is no file's: what it grew
by with as many connections again as were open before, by their number. The first ones fill what was
free in the heap and would look cheaper than they are.

Run: ``python -m tests.bench.idle [--connections 1000] [--uvloop] [--engine lean]``
"""

import argparse
import asyncio
import gc
import sys
import tempfile
from pathlib import Path

import trustme

import kit.transport.grpc  # noqa: F401  (quiets grpcio)
from kit.transport.grpc.engine import (
    ClientTls,
    Keepalive,
    Limits,
    Route,
    RpcFailed,
    ServerCall,
    ServerTls,
    UnaryRoute,
)
from kit.transport.grpc.engines import EngineName, client_engine, server_engine

AT_ONCE = 20


def anonymous_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process that is no file's."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


async def echo(request: bytes, _call: ServerCall) -> bytes:
    return request


def route(_method: str) -> Route:
    return UnaryRoute(echo)


async def serve(engine: EngineName, tls: ServerTls | None) -> None:
    """Serve until stdin closes; the first line of stdout is the port."""
    server = server_engine(engine)(route, tls=tls, limits=Limits(), keepalive=Keepalive())
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    print(port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        gc.collect()
        print(anonymous_bytes(), flush=True)
    await server.stop(0)


async def hold(engine: EngineName, port: int, count: int, tls: ClientTls | None) -> None:
    """Open connections, print what they took, and hold them until stdin closes."""
    connect = client_engine(engine)

    async def opened() -> object:
        connection = connect(
            f"127.0.0.1:{port}", authority=None, tls=tls, limits=Limits(), keepalive=Keepalive()
        )
        while True:
            try:
                await connection.unary("/bench.Echo/Call", bytes(64), (("dtm-gid", "1"),), None)
                return connection
            except RpcFailed:
                await asyncio.sleep(0.1)  # the machine is busy

    held: list[object] = []
    loop = asyncio.get_running_loop()
    before = 0
    for _ in range(2):
        for _ in range(count // AT_ONCE):
            held += await asyncio.gather(*(opened() for _ in range(AT_ONCE)))
        gc.collect()
        now = anonymous_bytes()
        print((now - before) / count, flush=True)
        before = now
        await loop.run_in_executor(None, sys.stdin.readline)


async def process(*args: str) -> asyncio.subprocess.Process:
    """This module once more."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.idle", *args, stdin=pipe, stdout=pipe
    )


async def say(to: asyncio.subprocess.Process, text: str = "") -> str:
    """Send a line; the line that comes back."""
    assert to.stdin is not None
    assert to.stdout is not None
    to.stdin.write(f"{text}\n".encode())
    return (await to.stdout.readline()).decode().strip()


async def measure(
    engine: EngineName, count: int, folder: Path, *, tls: bool, fast: bool
) -> tuple[float, float]:
    """Bytes an idle connection takes, on the server and on the client."""
    ca, leaf, key = (folder / f"{name}.pem" for name in ("ca", "leaf", "key"))
    if tls:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(ca)
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(key)
        for part in issued.cert_chain_pems:
            part.write_to_path(leaf, append=True)
    common = ["--engine", engine, *(["--tls", str(folder)] if tls else [])]
    common += ["--uvloop"] if fast else []
    server = await process("--serve", *common)
    assert server.stdout is not None
    port = (await server.stdout.readline()).decode().strip()
    client = await process("--hold", port, "--connections", str(count), *common)
    try:
        assert client.stdout is not None
        await client.stdout.readline()
        before = int(await say(server))
        client_each = float(await say(client))
        return (int(await say(server)) - before) / count, client_each
    finally:
        for one in (client, server):
            assert one.stdin is not None
            one.stdin.close()
            await one.wait()


def run_here(options: argparse.Namespace) -> bool:
    """Be the server or the client of a measurement, when asked to."""
    folder = Path(options.tls or ".")
    main = None
    if options.serve:
        identity = (
            ServerTls.from_files(folder / "leaf.pem", folder / "key.pem") if options.tls else None
        )
        main = serve(options.engine, identity)
    elif options.hold:
        tls = ClientTls((folder / "ca.pem").read_bytes()) if options.tls else None
        main = hold(options.engine, options.hold, options.connections, tls)
    if main is None:
        return False
    if options.uvloop:
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--engine", default="lean", choices=("lean", "grpcio"))
    parser.add_argument("--only-tls", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tls", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if run_here(options):
        return
    for tls in (False, True) if not options.only_tls else (True,):
        with tempfile.TemporaryDirectory() as folder:
            server, client = asyncio.run(
                measure(
                    options.engine, options.connections, Path(folder), tls=tls, fast=options.uvloop
                )
            )
        name = "TLS" if tls else "plain"
        print(f"{name:<6} server {server / 1e3:6.1f} kB  client {client / 1e3:6.1f} kB")


if __name__ == "__main__":
    main()
