"""Topics: a message step that reaches whoever subscribed.

Source: dtm-labs/dtm dtmsvr/topics.go, dtmsvr/trans_type_msg.go (GenBranches).
"""

import asyncio
import json

import pytest

from tests.conformance.dtm.clients import ERROR as BROKEN
from tests.conformance.dtm.clients import INVALID, SUCCESS, Api, Reply, Tx, unique
from tests.conformance.dtm.coordinators import FOREIGN, Coordinator, accepted

pytestmark = pytest.mark.asyncio(loop_scope="session")

_RELOADED_AFTER = 4.0
"""dtm reads its topics every ConfigUpdateInterval."""


async def subscribe(tm: Coordinator, topic: str, *urls: str) -> None:
    """Subscribe ``urls``, and wait where the coordinator needs time for it."""
    for url in urls:
        accepted(await tm.http.get("subscribe", topic=topic, url=url, remark="test"))
    if FOREIGN:
        await asyncio.sleep(_RELOADED_AFTER)


def message(gid: str, topic: str, *urls: str, wait: bool = True) -> Tx:
    """A msg to ``topic`` and then to ``urls``."""
    steps = [{"action": f"topic://{topic}"}, *({"action": url} for url in urls)]
    return Tx(gid, "msg", steps, options={"wait_result": wait})


async def test_row_20_msg_to_a_topic_calls_every_subscriber(tm: Coordinator, api: Api) -> None:
    """Branches 01-01 and 01-02, then the step behind it."""
    topic, gid = unique("topic"), tm.gid("msg")
    await subscribe(tm, topic, api.url("one"), api.url("two"))
    accepted(await api.submit(message(gid, topic, api.url("after"))))
    assert [(c.branch_id, c.name) for c in tm.business.calls(gid)] == [
        ("01-01", "one"),
        ("01-02", "two"),
        ("02", "after"),
    ]
    assert await tm.keys(gid) == ["01-01 action", "01-02 action", "02 action"]


async def test_row_20_msg_to_a_topic_with_one_subscriber_has_a_plain_branch(
    tm: Coordinator, api: Api
) -> None:
    """01, as if the URL stood in the step."""
    topic, gid = unique("topic"), tm.gid("msg")
    await subscribe(tm, topic, api.url("one"))
    accepted(await api.submit(message(gid, topic)))
    assert tm.business.story(gid) == ["01 action"]


async def test_row_20_msg_to_an_unknown_topic_is_refused_and_not_stored(
    tm: Coordinator, api: Api
) -> None:
    """``topic not found``."""
    gid = tm.gid("msg")
    reply = await api.submit(message(gid, unique("nobody")))
    assert reply.word in (INVALID, BROKEN)
    assert "topic not found" in reply.text
    assert (await tm.query(gid))["transaction"] is None


async def test_row_20_msg_that_is_stored_does_not_hear_of_later_subscriptions(
    tm: Coordinator, api: Api
) -> None:
    """The subscribers at Prepare count, at the Submit too."""
    topic, gid = unique("topic"), tm.gid("msg")
    await subscribe(tm, topic, api.url("one"))
    accepted(await api.prepare(message(gid, topic)))
    await subscribe(tm, topic, api.url("two"))
    accepted(await api.submit(message(gid, topic)))
    assert [call.name for call in tm.business.calls(gid)] == ["one"]


async def test_row_20_msg_to_a_topic_that_was_emptied_is_refused(tm: Coordinator, api: Api) -> None:
    """A topic whose last URL was taken out stays, with nobody in it."""
    topic, gid = unique("topic"), tm.gid("msg")
    await subscribe(tm, topic, api.url("one"))
    accepted(await tm.http.get("unsubscribe", topic=topic, url=api.url("one")))
    if FOREIGN:
        await asyncio.sleep(_RELOADED_AFTER)
    reply = await api.submit(message(gid, topic))
    assert reply.word in (INVALID, BROKEN)
    assert "topic not found" in reply.text


async def entry(tm: Coordinator, topic: str) -> dict[str, object]:
    """The topic as it is stored."""
    reply = await tm.http.get("queryKV", cat="topics", key=topic)
    (found,) = reply.body["kv"]
    assert isinstance(found, dict)
    return found


class _OverHttp:
    """Topics as routes; the methods are those of :class:`GrpcApi`."""

    def __init__(self, tm: Coordinator) -> None:
        self._tm = tm

    async def topic(self, method: str, topic: str, url: str = "", remark: str = "") -> Reply:
        http = self._tm.http
        if method == "DeleteTopic":
            return await http.send("DELETE", f"topic/{topic}")
        return await http.get(method.lower(), topic=topic, url=url, remark=remark)


@pytest.mark.parametrize("over", ["http", "grpc"])
async def test_row_21_topics_count_their_changes(tm: Coordinator, over: str) -> None:
    """Subscribe, unsubscribe, delete, and what stands in the key-value table meanwhile."""
    api = tm.grpc if over == "grpc" else _OverHttp(tm)
    topic, one, two = unique("topic"), tm.http.url("one"), tm.http.url("two")
    accepted(await api.topic("Subscribe", topic, one, "the first"))
    found = await entry(tm, topic)
    assert (found["cat"], found["k"], found["version"]) == ("topics", topic, 1)
    assert json.loads(str(found["v"])) == [{"url": one, "remark": "the first"}]

    accepted(await api.topic("Subscribe", topic, two))
    found = await entry(tm, topic)
    assert found["version"] == 2
    assert [row["url"] for row in json.loads(str(found["v"]))] == [one, two]

    accepted(await api.topic("Unsubscribe", topic, one))
    accepted(await api.topic("Unsubscribe", topic, two))
    found = await entry(tm, topic)
    assert (found["version"], json.loads(str(found["v"]) or "[]")) == (4, [])

    accepted(await api.topic("DeleteTopic", topic))
    assert (await tm.http.get("queryKV", cat="topics", key=topic)).body["kv"] == []


@pytest.mark.parametrize("over", ["http", "grpc"])
async def test_row_21_topic_errors_have_their_words(tm: Coordinator, over: str) -> None:
    """500 over HTTP, UNKNOWN over gRPC."""
    api = tm.grpc if over == "grpc" else _OverHttp(tm)
    topic, url = unique("topic"), tm.http.url("one")

    async def fails(method: str, text: str, *args: str) -> None:
        reply = await api.topic(method, *args)
        assert (reply.word, reply.text) == (BROKEN, text)
        assert reply.code == (2 if over == "grpc" else 500)

    await fails("Subscribe", "empty topic", "", url)
    await fails("Subscribe", "empty url", topic, "")
    await fails("Unsubscribe", "empty topic", "", url)
    await fails("Unsubscribe", "empty url", topic, "")
    await fails("Unsubscribe", "no such a topic", topic, url)
    await fails("DeleteTopic", "storage: NotFound", topic)
    accepted(await api.topic("Subscribe", topic, url))
    await fails("Subscribe", "this url exists", topic, url)
    await fails("Unsubscribe", "no such an url ", topic, f"{url}/other")
    accepted(await api.topic("Unsubscribe", topic, url))
    await fails("Unsubscribe", "this topic is empty", topic, url)
    accepted(await api.topic("DeleteTopic", topic))


async def test_row_21_parallel_subscriptions_lose_none_that_was_acknowledged(
    tm: Coordinator,
) -> None:
    """The version counts those that went well; the others were told of their conflict."""
    topic = unique("topic")
    urls = [tm.http.url(f"n{number}") for number in range(8)]
    replies = await asyncio.gather(
        *(tm.http.get("subscribe", topic=topic, url=url, remark="") for url in urls)
    )
    done = {url for url, reply in zip(urls, replies, strict=True) if reply.word == SUCCESS}
    lost = [reply.text for reply in replies if reply.word != SUCCESS]
    assert set(lost) <= {"storage: NotFound", "storage: UniqueKeyConflict"}
    found = await entry(tm, topic)
    assert found["version"] == len(done) >= 1
    assert {row["url"] for row in json.loads(str(found["v"]))} == done
