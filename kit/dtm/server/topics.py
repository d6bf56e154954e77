"""Topics: a message step may name one instead of a branch, and reaches all of its subscribers.

A topic is a row of the key-value table: its name, a JSON array of ``{"url", "remark"}``, and a
version that counts changes. It is read from the store whenever a message names it, so what was
subscribed, unsubscribed or deleted at any coordinator holds at once; dtm reads a copy that is some
seconds old.

Source: dtm-labs/dtm dtmsvr/topics.go.
"""

import json
from collections.abc import Callable

from kit.dtm.server.requests import MAX_URL_CHARS, InvalidRequest
from kit.dtm.store import KeyValue, KvChanged, Store

CATEGORY = "topics"
MAX_NAME_CHARS = 128
MAX_SUBSCRIBERS = 1_000
_ATTEMPTS = 10
"""Tries to change a topic that others change at the same time."""


class TopicError(Exception):
    """The topic is not as the request expects; the text is dtm's."""


class Topics:
    """The topics in ``store``."""

    def __init__(self, store: Store, check_url: Callable[[str, str], str]) -> None:
        self._store = store
        self._check_url = check_url

    async def urls(self, topic: str) -> list[str]:
        """Who is subscribed, in the order of subscription.

        Raises:
            InvalidRequest: nobody is.
        """
        row = await self._find(topic)
        urls = [entry["url"] for entry in _entries(row)] if row else []
        if not urls:
            raise InvalidRequest(
                f"Steps.action: topic not found: {topic!r} has no subscriber; subscribe a URL first"
            )
        return urls

    async def subscribe(self, topic: str, url: str, remark: str = "") -> None:
        """Add ``url`` to ``topic``, which is made when there is none.

        Raises:
            TopicError: a name is empty, or the URL is subscribed.
            InvalidRequest: what is given can never be a topic or a branch.
        """
        _check_names(topic, url)
        if len(topic) > MAX_NAME_CHARS or not topic.isprintable():
            raise InvalidRequest(f"topic: at most {MAX_NAME_CHARS} printable characters are kept")
        if len(remark) > MAX_URL_CHARS or not (remark.isprintable() or not remark):
            raise InvalidRequest(f"remark: at most {MAX_URL_CHARS} printable characters are kept")
        self._check_url("url", url)
        for _ in range(_ATTEMPTS):
            row = await self._find(topic)
            entries = _entries(row) if row else []
            if any(entry["url"] == url for entry in entries):
                raise TopicError("this url exists")
            if len(entries) >= MAX_SUBSCRIBERS:
                raise InvalidRequest(f"topic: {topic!r} has {MAX_SUBSCRIBERS} subscribers already")
            text = _text([*entries, {"url": url, "remark": remark}])
            try:
                if row is None:
                    await self._store.create_kv(CATEGORY, topic, text)
                else:
                    await self._store.update_kv(row, text)
            except KvChanged:
                continue
            return
        raise TopicError("storage: NotFound")

    async def unsubscribe(self, topic: str, url: str) -> None:
        """Take ``url`` out of ``topic``; an empty topic stays.

        Raises:
            TopicError: a name is empty or not there.
        """
        _check_names(topic, url)
        for _ in range(_ATTEMPTS):
            row = await self._find(topic)
            if row is None:
                raise TopicError("no such a topic")
            entries = _entries(row)
            if not entries:
                raise TopicError("this topic is empty")
            others = [entry for entry in entries if entry["url"] != url]
            if len(others) == len(entries):
                raise TopicError("no such an url ")
            try:
                await self._store.update_kv(row, _text(others))
            except KvChanged:
                continue
            return
        raise TopicError("storage: NotFound")

    async def delete(self, topic: str) -> None:
        """Remove ``topic`` with its subscribers.

        Raises:
            TopicError: the name is empty, or there is none.
        """
        if not topic:
            raise TopicError("empty topic")
        if not await self._store.delete_kv(CATEGORY, topic):
            raise TopicError("storage: NotFound")

    async def _find(self, topic: str) -> KeyValue | None:
        found = await self._store.find_kv(CATEGORY, topic) if topic else []
        return found[0] if found else None


def _check_names(topic: str, url: str) -> None:
    if not topic:
        raise TopicError("empty topic")
    if not url:
        raise TopicError("empty url")


def _entries(row: KeyValue) -> list[dict[str, str]]:
    decoded = json.loads(row.value or "[]")
    return decoded if isinstance(decoded, list) else []


def _text(entries: list[dict[str, str]]) -> str:
    return json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
