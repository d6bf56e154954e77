"""TLS of the lean engine beside a peer that does to its records what no library would."""

import asyncio
import contextlib
import functools
import gc
import inspect
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import ClientTls, Limits, RpcFailed, ServerCall, ServerTls
from kit.transport.lean.frames import (
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    PING,
    PREFACE,
    frame,
    settings,
    window_update,
)
from kit.transport.lean.guard import Guard
from kit.transport.lean.tls import TlsSocket, client_context, server_context
from tests.conformance.lean.engines_at_work import connected, echo, serving
from tests.conformance.lean.raw import Peer, answering, call, dialled

METHOD = "/s.S/M"
CA, OTHER = trustme.CA(), trustme.CA()
_LEAF = CA.issue_cert("127.0.0.1")
IDENTITY = ServerTls(
    b"".join(pem.bytes() for pem in _LEAF.cert_chain_pems), _LEAF.private_key_pem.bytes()
)
TRUSTING = ClientTls(ca=CA.cert_pem.bytes())
QUICK = Guard(handshake=0.3)


def on_both_loops(case: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a case on asyncio's loop and on uvloop's: they end a socket in different ways."""

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    @functools.wraps(case)
    def run(loop: str, **others: Any) -> None:
        module = asyncio if loop == "asyncio" else pytest.importorskip("uvloop")
        with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
            runner.run(case(**others))

    takes = inspect.signature(case)
    first = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = takes.replace(  # type: ignore[attr-defined]
        parameters=[first, *takes.parameters.values()], return_annotation=None
    )
    return run


class ByHand:
    """One end of TLS: it makes records, and whoever holds it sends what it likes of them."""

    def __init__(self, peer: Peer, *, server: bool = False) -> None:
        self.reader, self.writer = peer.reader, peer.writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context(IDENTITY) if server else client_context(TRUSTING)
        name = None if server else "127.0.0.1"
        self.tls = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=name)

    def sealed(self, data: bytes) -> bytes:
        """The records that carry ``data``."""
        assert self.tls.write(data) == len(data)
        return self._out.read()

    def goodbye(self) -> bytes:
        """The record that says that no more will come."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._out.read()

    async def agree(self) -> None:
        """The whole handshake."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.writer.write(self._out.read())
                await self._more()
            else:
                self.writer.write(self._out.read())
                return

    async def until(self, text: bytes) -> None:
        """Read until ``text`` has come."""
        plain = b""
        while text not in plain:
            try:
                plain = plain[-100:] + self.tls.read(16_384)
            except ssl.SSLWantReadError:
                await self._more()

    async def end(self) -> str:
        """Read to the end: ``goodbye``, the name of an alert, or ``cut``."""
        while True:
            try:
                if not self.tls.read(16_384):
                    return "goodbye"
            except ssl.SSLWantReadError:
                await self._more()
            except ssl.SSLEOFError:
                return "cut"
            except ssl.SSLZeroReturnError:
                return "goodbye"
            except ssl.SSLError as exc:
                return exc.reason

    async def _more(self) -> None:
        async with asyncio.timeout(10):
            data = await self.reader.read(65_536)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()


@asynccontextmanager
async def agreed(address: str) -> AsyncIterator[ByHand]:
    """A client by hand that has agreed on TLS and said hello."""
    async with dialled(address, b"") as peer:
        hand = ByHand(peer)
        await hand.agree()
        hand.writer.write(hand.sealed(PREFACE + settings({})))
        yield hand


async def gone(server: object) -> None:
    """Wait until a server has no connections."""
    async with asyncio.timeout(5):
        while server._connections:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)


async def served_still(address: str) -> None:
    """Another client is served as ever."""
    async with connected(address, tls=TRUSTING) as to:
        assert (await to.unary(METHOD, b"hi", (), time.monotonic() + 5)).message == b"hi"


class Hanging:
    """A handler that never answers, and tells when it is cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, _request: bytes, _call: ServerCall) -> bytes:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError


@asynccontextmanager
async def amid_a_call(last_word: str) -> AsyncIterator[ByHand]:
    """A client by hand whose call is under way; what it does next ends it, and is answered so."""
    hanging = Hanging()
    async with serving(hanging, tls=IDENTITY) as (address, server), agreed(address) as hand:
        hand.writer.write(hand.sealed(call(1)))
        await asyncio.wait_for(hanging.begun.wait(), 5)
        yield hand
        await asyncio.wait_for(hanging.cancelled.wait(), 5)
        assert await hand.end() == last_word
        await gone(server)


def spoilt(record: bytes) -> bytes:
    """One bit of its seal is another."""
    return record[:-1] + bytes([record[-1] ^ 1])


# On a server.


@on_both_loops
async def test_a_record_may_come_in_crumbs_and_many_at_once() -> None:
    async with serving(echo, tls=IDENTITY) as (address, _), agreed(address) as hand:
        for byte in hand.sealed(call(1, b"in crumbs")):
            hand.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await hand.until(b"in crumbs")
        calls = [hand.sealed(call(3 + 2 * number, b"%05d" % number)) for number in range(500)]
        hand.writer.write(b"".join(calls))  # beyond what is given to OpenSSL at once
        await hand.until(b"00499")


@on_both_loops
@pytest.mark.parametrize("size", [16_375, 16_384, 16_385, 100_000, 3_000_000])
async def test_messages_around_and_beyond_a_record_arrive_whole(size: int) -> None:
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with serving(echo, tls=IDENTITY) as (address, _), connected(address, tls=TRUSTING) as to:
        assert (await to.unary(METHOD, message, (), None)).message == message


@on_both_loops
async def test_plain_text_is_cut_off() -> None:
    async with serving(echo, tls=IDENTITY) as (address, server):
        async with dialled(address, PREFACE + settings({})) as peer:
            assert await peer.closed()
        await gone(server)
        await served_still(address)


@on_both_loops
@pytest.mark.parametrize("part", [0, 1, 100])
async def test_a_handshake_that_does_not_end_is_cut(part: int) -> None:
    async with serving(echo, tls=IDENTITY, guard=QUICK) as (address, server):
        async with dialled(address, b"") as peer:
            hand = ByHand(peer)
            with contextlib.suppress(ssl.SSLWantReadError):
                hand.tls.do_handshake()
            peer.writer.write(hand._out.read()[:part])
            assert await peer.closed()
        await gone(server)
        await served_still(address)


@on_both_loops
async def test_a_peer_that_leaves_amid_the_handshake_leaves_nothing() -> None:
    async with serving(echo, tls=IDENTITY) as (address, server):
        for half in (False, True):
            async with dialled(address, b"\x16\x03\x01\x02\x00\x01") as peer:
                if half:
                    peer.writer.write_eof()
                    assert await peer.closed()
            await gone(server)
        await served_still(address)


@on_both_loops
async def test_whoever_has_not_agreed_yet_counts_as_a_connection_and_does_not_hold_up_the_end() -> (
    None
):
    async with (
        serving(echo, tls=IDENTITY, limits=Limits(connections=1)) as (address, server),
        dialled(address, b""),
        dialled(address, b"") as second,
    ):
        assert await second.closed()
        assert len(server._connections) == 1  # type: ignore[attr-defined]
        await asyncio.wait_for(server.stop(None), 5)


@on_both_loops
async def test_a_broken_record_ends_its_connection_with_an_alert() -> None:
    async with amid_a_call("SSLV3_ALERT_BAD_RECORD_MAC") as hand:
        hand.writer.write(spoilt(hand.sealed(call(3))))


@on_both_loops
@pytest.mark.parametrize("part", [0, 3, 30], ids=["whole", "amid a head", "amid a record"])
async def test_an_end_without_goodbye_is_an_end(part: int) -> None:
    async with amid_a_call("goodbye") as hand:
        hand.writer.write(hand.sealed(call(3))[:part])
        hand.writer.write_eof()


@on_both_loops
async def test_a_goodbye_is_answered_and_nothing_is_read_behind_it() -> None:
    async with amid_a_call("goodbye") as hand:
        hand.writer.write(hand.goodbye() + b"no record")


@on_both_loops
async def test_a_server_that_stops_says_goodbye() -> None:
    async with serving(echo, tls=IDENTITY) as (address, server), agreed(address) as hand:
        hand.writer.write(hand.sealed(call(1, b"hello")))
        await hand.until(b"hello")
        await server.stop(0)
        assert await hand.end() == "goodbye"


@on_both_loops
async def test_whoever_does_not_read_is_not_written_to_without_end() -> None:
    """What is sealed waits below TLS, where the loop counts it: beyond 64 KiB nothing is added."""
    written = 0

    async def flood(call: ServerCall) -> None:
        nonlocal written
        for _ in range(400):
            await call.write(bytes(100_000))
            written += 1

    async with (
        serving(stream=flood, tls=IDENTITY) as (address, server),
        agreed(address) as hand,
    ):
        [end] = server._connections  # type: ignore[attr-defined]
        wide = settings({INITIAL_WINDOW_SIZE: LARGEST_WINDOW}) + window_update(0, 1 << 30)
        hand.writer.write(hand.sealed(wide + call(1)))
        stuck = -1
        async with asyncio.timeout(60):
            while not end.paused or stuck != written:  # until it has come to a stand
                stuck = written
                await asyncio.sleep(0.2)
        await asyncio.sleep(0.1)
        assert written == stuck < 400
        async with asyncio.timeout(20):
            await hand.until(b"grpc-status")
        assert written == 400


@on_both_loops
async def test_what_a_connection_took_is_free_once_it_is_closed() -> None:
    """Without the collector, which may come late: what OpenSSL holds does not count for it."""
    async with serving(echo, tls=IDENTITY) as (address, server):
        gc.collect()
        gc.disable()
        try:
            await served_still(address)
            await gone(server)
            async with asyncio.timeout(5):
                while any(type(one) is TlsSocket for one in gc.get_objects()):
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


# On a client.


async def fails(address: str, text: str, *, guard: Guard | None = None) -> RpcFailed:
    """The failure of one call."""
    async with connected(address, tls=TRUSTING, guard=guard) as to:
        with pytest.raises(RpcFailed, match=text) as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 10)
    assert caught.value.status is GrpcCode.UNAVAILABLE
    return caught.value


@on_both_loops
async def test_a_server_of_plain_text_is_unavailable_and_it_is_said_why() -> None:
    async with serving(echo) as (address, _):
        assert (await fails(address, r"failed to connect .*SSL")).unsent


@on_both_loops
async def test_a_server_that_never_answers_the_handshake_is_unavailable() -> None:
    async def silent(peer: Peer) -> None:
        await peer.reader.read()

    async with answering(silent) as address:
        assert (await fails(address, "no HTTP/2 within 0.3 s", guard=QUICK)).unsent
        assert (await fails(address, "no answer within 1.0 s")).unsent


@on_both_loops
async def test_a_server_that_leaves_amid_the_handshake_is_unavailable() -> None:
    async def leaving(peer: Peer) -> None:
        await peer.reader.read(1_000)
        peer.writer.write(b"\x16\x03\x03\x01\x00\x02")
        peer.writer.write_eof()
        await peer.reader.read()

    async with answering(leaving) as address:
        assert (await fails(address, "left amid the TLS handshake")).unsent


def end_of_a_call(how: Callable[[ByHand], bytes]) -> Callable[[Peer], Awaitable[None]]:
    """A server that takes a call and ends its connection by what ``how`` gives."""

    async def behaviour(peer: Peer) -> None:
        hand = ByHand(peer, server=True)
        await hand.agree()
        hand.writer.write(hand.sealed(settings({})))
        await hand.until(METHOD.encode())
        hand.writer.write(how(hand))
        hand.writer.write_eof()
        await hand.reader.read()

    return behaviour


@on_both_loops
@pytest.mark.parametrize(
    ("how", "text"),
    [
        # The answer to the ping finds TLS broken.
        (
            lambda hand: hand.sealed(frame(PING, 0, 0, bytes(8))) + spoilt(hand.sealed(b"more")),
            "(?i)bad.record.mac",
        ),
        (lambda hand: hand.sealed(settings({}))[:-1], "Socket closed"),
        (lambda _: b"", "Socket closed"),
        (lambda hand: hand.goodbye(), "Socket closed"),
        (lambda _: b"no record at all", "(?i)wrong.version.number"),
    ],
    ids=["spoilt", "amid a record", "no goodbye", "goodbye", "plain text"],
)
async def test_a_call_whose_connection_ends_is_unavailable_and_may_have_been_served(
    how: Callable[[ByHand], bytes], text: str
) -> None:
    async with answering(end_of_a_call(how)) as address:
        assert not (await fails(address, text)).unsent


@on_both_loops
async def test_a_server_that_is_not_trusted_hears_of_it() -> None:
    heard: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    async def behaviour(peer: Peer) -> None:
        hand = ByHand(peer, server=True)
        try:
            await hand.agree()
        except ssl.SSLError as exc:
            if not heard.done():
                heard.set_result(exc.reason)

    async with (
        answering(behaviour) as address,
        connected(address, tls=ClientTls(ca=OTHER.cert_pem.bytes())) as to,
    ):
        with pytest.raises(RpcFailed, match="certificate verify failed") as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 10)
        assert caught.value.unsent
        assert await asyncio.wait_for(heard, 5) == "TLSV1_ALERT_UNKNOWN_CA"


@on_both_loops
async def test_all_clients_of_one_identity_share_their_trust() -> None:
    """The trusted authorities take more than a connection."""
    async with (
        serving(echo, tls=IDENTITY) as (address, _),
        connected(address, tls=TRUSTING) as to,
        connected(address, tls=ClientTls(ca=CA.cert_pem.bytes())) as other,
    ):
        for one in (to, other):
            assert (await one.unary(METHOD, b"hi", (), None)).message == b"hi"
        assert to._context is other._context  # type: ignore[attr-defined]
