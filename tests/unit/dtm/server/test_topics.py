"""Topics over a real store: subscriptions hold at once, and several change them at a time."""

import asyncio

import pytest

from kit.dtm.server.requests import InvalidRequest
from kit.dtm.server.topics import TopicError, Topics
from kit.dtm.store.memory import MemoryStore


@pytest.fixture
def topics() -> Topics:
    return Topics(MemoryStore(), lambda _, url: url)


async def test_subscribers_are_called_in_the_order_of_their_subscription(topics: Topics) -> None:
    """The first subscription makes the topic."""
    await topics.subscribe("t", "h/s/B", "second")
    await topics.subscribe("t", "h/s/A")
    assert await topics.urls("t") == ["h/s/B", "h/s/A"]


async def test_what_is_unsubscribed_or_deleted_is_gone_at_once(topics: Topics) -> None:
    """No copy of yesterday's subscribers."""
    await topics.subscribe("t", "h/s/A")
    await topics.unsubscribe("t", "h/s/A")
    with pytest.raises(InvalidRequest, match="topic not found"):
        await topics.urls("t")
    await topics.subscribe("t", "h/s/B")
    await topics.delete("t")
    with pytest.raises(InvalidRequest, match="topic not found"):
        await topics.urls("t")
    await topics.subscribe("t", "h/s/C")
    assert await topics.urls("t") == ["h/s/C"]


async def test_errors_are_worded_as_dtm_words_them(topics: Topics) -> None:
    """Admin tools look for these texts."""
    await topics.subscribe("t", "h/s/A")
    await topics.subscribe("empty", "h/s/A")
    await topics.unsubscribe("empty", "h/s/A")
    for attempt, text in (
        (topics.subscribe("", "u"), "empty topic"),
        (topics.subscribe("t", ""), "empty url"),
        (topics.subscribe("t", "h/s/A"), "this url exists"),
        (topics.unsubscribe("", "u"), "empty topic"),
        (topics.unsubscribe("t", ""), "empty url"),
        (topics.unsubscribe("other", "u"), "no such a topic"),
        (topics.unsubscribe("empty", "u"), "this topic is empty"),
        (topics.unsubscribe("t", "u"), "no such an url "),
        (topics.delete(""), "empty topic"),
        (topics.delete("other"), "storage: NotFound"),
    ):
        with pytest.raises(TopicError) as caught:
            await attempt
        assert str(caught.value) == text


async def test_subscriptions_at_the_same_time_are_all_kept(topics: Topics) -> None:
    """A lost race is run again."""
    await asyncio.gather(*(topics.subscribe("t", f"h/s/{n}") for n in range(8)))
    assert sorted(await topics.urls("t")) == [f"h/s/{n}" for n in range(8)]


@pytest.mark.parametrize("name", ["x" * 129, "a\nb"])
async def test_a_name_that_cannot_be_kept_is_refused(topics: Topics, name: str) -> None:
    """By field, before anything is stored."""
    with pytest.raises(InvalidRequest, match="topic: "):
        await topics.subscribe(name, "h/s/A")
