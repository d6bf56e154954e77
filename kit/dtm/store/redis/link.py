"""The one connection of the store: found, opened, opened again, and never retried behind its back.

Theory of operation
    *One node.* All keys share a hash tag, so a cluster keeps them on one node. Whoever is asked
    first answers with where that is (``MOVED``), and the link goes there.

    *Deadline.* Each request must be answered :data:`ANSWER_WITHIN_S` after it was asked, whatever
    happens: waiting, finding the node, opening and running all count. A connection that is late is
    ended, and the next request opens another.

    *Retrying.* Only what Redis says it did not run is sent again: a script that it does not know
    (``NOSCRIPT``), or one that another node has to run (``MOVED``). What was sent and not answered
    is refused with an error that says so.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import hiredis

from kit.dtm.store import StoreCorrupt, StoreUnavailable
from kit.dtm.store.redis.scripts import ALL, Script
from kit.dtm.store.redis.wire import Reply, Wire, pack

ANSWER_WITHIN_S = 2.7
"""Seconds from asking to answer or refusal: the contract's 3 less some for a busy event loop."""

CONNECT_WITHIN_S = 1.0
"""Seconds for one node to open a connection and to greet: there may be others to ask."""

MAX_HOPS = 5
"""Nodes that may send the link on before it gives up: a cluster at rest needs one."""

_WAYS_OUT = {
    "LOADING": "it has just been started, try again",
    "READONLY": "it is a replica; name the master",
    "OOM": "raise maxmemory, or let finished transactions be kept for a shorter time",
    "MISCONF": "it cannot write to its disk, see its log",
    "MASTERDOWN": "it is a replica without a master; name the master",
    "CLUSTERDOWN": "the cluster has lost nodes",
    "TRYAGAIN": "the slot is being moved to another node",
    "ASK": "the slot is being moved to another node",
    "BUSY": "a script of somebody else runs for too long",
    "NOREPLICAS": "too few replicas are connected",
    "NOAUTH": "set Store.User and Store.Password",
    "WRONGPASS": "check Store.User and Store.Password",
    "NOPERM": "the user must be allowed to run EVALSHA, SCRIPT, TIME and every key of the prefix",
    "DENIED": "it is in protected mode; give it a password or let it listen on loopback only",
}
"""Errors after which nothing was written, and what to do about each."""

_ELSEWHERE = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN")
"""Those for which another node may be the one to ask next time."""

_LOAD_SCRIPTS = tuple(pack("SCRIPT", "LOAD", script.text) for script in ALL)


@dataclass(frozen=True, slots=True)
class Request:
    """A command as it travels, and the instant of the loop's clock at which it was asked."""

    command: bytes
    asked: float


def run_script(script: Script, prefix: str, *args: str | bytes | int) -> bytes:
    """The command that runs ``script``."""
    return pack("EVALSHA", script.sha, 1, prefix, *args)


class Link:
    """Runs commands on the node that keeps the keys of ``prefix``.

    Args:
        addresses: (host, port) of each node that may be asked, at least one.
        prefix: of all keys.
        user: for ``AUTH``; empty is Redis' ``default``.
        password: for ``AUTH``; empty: none is sent.
    """

    def __init__(
        self, addresses: Sequence[tuple[str, int]], prefix: str, user: str, password: str
    ) -> None:
        self._addresses = list(addresses)
        self._address = self._addresses[0]
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self._greeting = [pack("EXISTS", prefix), *_LOAD_SCRIPTS]
        if password:
            words = (user, password) if user else (password,)
            self._greeting.insert(0, pack("AUTH", *words))

    @property
    def address(self) -> str:
        """Of the node that is or was connected, for messages."""
        return "Redis at {}:{}".format(*self._address)

    async def run(self, requests: Sequence[Request]) -> list[Reply | Exception]:
        """Send the requests in one pipeline; give for each its reply or what refuses it.

        Raises:
            StoreUnavailable: there is no connection; nothing was written.
        """
        deadline = min(request.asked for request in requests) + ANSWER_WITHIN_S
        wire, answers = await self._exchange([request.command for request in requests], deadline)
        again = [n for n, answer in enumerate(answers) if _did_not_run(answer)]
        if again:
            await self._heal(wire, answers[again[0]], deadline)
            _, repeated = await self._exchange([requests[n].command for n in again], deadline)
            for n, answer in zip(again, repeated, strict=True):
                answers[n] = answer
        return [self._refusal(a) if isinstance(a, hiredis.ReplyError) else a for a in answers]

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._wire is not None:
            self._wire.close("was closed")

    async def _exchange(
        self, commands: Sequence[bytes], deadline: float
    ) -> tuple[Wire, list[Reply | StoreUnavailable]]:
        wire = await self._connected(deadline)
        answers: list[Reply | StoreUnavailable] = await wire.exchange(commands, deadline)
        missing = len(commands) - len(answers)
        if missing:
            message = f"{self.address} {wire.lost}; whether this was written is unknown"
            answers += [StoreUnavailable(message) for _ in range(missing)]
        return wire, answers

    async def _heal(self, wire: Wire, refusal: Exception, deadline: float) -> None:
        """Do what makes Redis run what it did not."""
        moved = _moved_to(refusal, self._address)
        if moved is None:
            await self._exchange(_LOAD_SCRIPTS, deadline)
        elif self._wire is wire:  # else somebody else went there already
            wire.retire("sent its clients to another node")
            self._address = moved

    async def _connected(self, deadline: float) -> Wire:
        if self._wire is not None and not self._wire.lost:
            return self._wire
        async with self._connecting:
            if self._wire is not None and not self._wire.lost:
                return self._wire
            failure = StoreUnavailable()
            for address in dict.fromkeys((self._address, *self._addresses)):
                self._address = address
                try:
                    self._wire = await self._opened(deadline)
                except StoreUnavailable as exc:
                    failure = exc
                else:
                    return self._wire
            self._address = self._addresses[0]
            raise failure

    async def _opened(self, deadline: float) -> Wire:
        """A connection to the node that keeps the keys, starting with the address at hand."""
        for _ in range(MAX_HOPS):
            wire = await self._greeted(deadline)
            if wire is not None:
                return wire
        raise StoreUnavailable(f"{self.address}: {MAX_HOPS} nodes each named another; try again")

    async def _greeted(self, deadline: float) -> Wire | None:
        """A connection that is ready for scripts; ``None``: another node keeps the keys."""
        loop = asyncio.get_running_loop()
        deadline = min(deadline, loop.time() + CONNECT_WITHIN_S)
        try:
            async with asyncio.timeout_at(deadline):
                _, wire = await loop.create_connection(Wire, *self._address)
        except TimeoutError:
            raise StoreUnavailable(f"{self.address} does not answer; is it running?") from None
        except OSError as exc:
            raise StoreUnavailable(f"{self.address}: {exc}; is it running?") from exc
        answers = await wire.exchange(self._greeting, deadline)
        refusal = next((a for a in answers if isinstance(a, hiredis.ReplyError)), None)
        if refusal is None and len(answers) == len(self._greeting):
            return wire
        wire.close("was not ready")
        if refusal is None:
            raise StoreUnavailable(f"{self.address} {wire.lost} while it was connected to")
        moved = _moved_to(refusal, self._address)
        if moved is None:
            raise self._refusal(refusal)
        self._address = moved
        return None

    def _refusal(self, reply: Exception) -> Exception:
        """What an error of Redis means for whoever asked."""
        text = str(reply)
        for code, way_out in _WAYS_OUT.items():
            if text.startswith(code) or f"-{code} " in text or f" {code} command not" in text:
                if code in _ELSEWHERE and self._wire is not None:
                    self._wire.retire(f"said {code}")
                return StoreUnavailable(f"{self.address}: {text}; {way_out}")
        return StoreCorrupt(f"{self.address}: {text}")


def _did_not_run(answer: Reply | Exception) -> bool:
    return isinstance(answer, hiredis.ReplyError) and str(answer).startswith(("NOSCRIPT", "MOVED "))


def _moved_to(refusal: Exception, asked: tuple[str, int]) -> tuple[str, int] | None:
    """The address in ``MOVED slot host:port``; without a host it is the one that was asked."""
    words = str(refusal).split()
    if words[0] != "MOVED":
        return None
    host, _, port = words[2].rpartition(":")
    return host or asked[0], int(port)
