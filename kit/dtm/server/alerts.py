"""Tells a web hook of branches that give no usable answer again and again.

Nothing waits for it: alerts stand in a bounded queue, one task sends them, and what goes wrong is
logged only. An alert that is lost is no loss for long, since the next failure brings another.

Source: dtm-labs/dtm dtmsvr/trans_status.go (processInner, alerting).
"""

import asyncio
import json

from kit import log
from kit.dtm.core import Alert
from kit.dtm.server.callers.exchange import ExchangeFailed, HttpExchange, http_url
from kit.dtm.wire import Status

logger = log.get_logger()

MAX_QUEUED = 1_000
TIMEOUT_S = 3.0


class AlertSender:
    """Posts alerts to one URL.

    Args:
        url: ``AlertWebHook``; the targets of branches do not restrict it, an operator wrote it.
        max_queued: alerts that may wait; further ones are dropped.

    Raises:
        ValueError: ``url`` is no URL of HTTP.
    """

    def __init__(self, url: str, *, max_queued: int = MAX_QUEUED) -> None:
        try:
            self._url = http_url(url)
        except ValueError as exc:
            raise ValueError(f"AlertWebHook: {exc}") from exc
        self._exchange = HttpExchange()
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(max_queued)
        self._sending: asyncio.Task[None] | None = None
        self._dropped = 0

    async def __aenter__(self) -> "AlertSender":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop; what is still queued is not sent. May be called twice."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._exchange.aclose()

    def send(self, gid: str, status: Status, alert: Alert) -> None:
        """Queue ``alert`` about a transaction, and return at once."""
        body = json.dumps(
            {
                "gid": gid,
                "status": status.value,
                "branch": alert.branch,
                "error": alert.error,
                "retry_count": alert.retry_count,
            },
            ensure_ascii=False,
        ).encode(errors="replace")
        if self._queue.full():
            self._dropped += 1
            if self._dropped == 1:
                logger.error("alerting webhook error: %d alerts wait already", self._queue.qsize())
            return
        self._queue.put_nowait(body)
        if self._sending is None:
            self._sending = asyncio.create_task(self._run())  # ends in aclose

    async def _run(self) -> None:
        while True:
            body = await self._queue.get()
            if self._dropped:
                logger.error("alerting webhook error: %d alerts were dropped", self._dropped)
                self._dropped = 0
            try:
                await self._post(body)
            except Exception:
                logger.exception("alerting webhook error: unexpected")

    async def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        try:
            reply = await self._exchange.send("POST", self._url, headers, body, TIMEOUT_S)
        except ExchangeFailed as error:
            logger.error("alerting webhook error: %s", error)  # noqa: TRY400  (expected trouble)
            return
        if not 200 <= reply.status < 300:
            logger.error("alerting webhook error: HTTP %d: %s", reply.status, reply.text[:200])
