"""Request metadata: lower-case keys, several values."""

import asyncio

from kit.metadata import Metadata, client_metadata, server_metadata


def test_keys_are_lower_case_however_they_are_asked_for() -> None:
    """metadata.go: Get, Set and Range work on lower-case keys."""
    metadata = Metadata([("X-Md-Global-Id", "1")])
    metadata.add("x-MD-global-ID", "2")
    assert list(metadata.items()) == [("x-md-global-id", "1"), ("x-md-global-id", "2")]
    assert metadata.get("X-MD-GLOBAL-ID") == "1"
    assert metadata.values("X-md-global-id") == ["1", "2"]
    assert "X-MD-Global-Id" in metadata
    assert len(metadata) == 1


def test_set_replaces_and_add_appends() -> None:
    """Set leaves one value."""
    metadata = Metadata([("a", "1"), ("a", "2")])
    metadata.set("A", "3")
    assert metadata.values("a") == ["3"]


def test_an_empty_key_or_value_is_ignored() -> None:
    """metadata.go, Set: nothing is stored, nothing is replaced."""
    metadata = Metadata([("", "1"), ("a", "")])
    metadata.set("", "1")
    assert len(metadata) == 0
    metadata.set("a", "1")
    metadata.set("a", "")
    metadata.add("a", "")
    assert metadata.values("a") == ["1"]


def test_what_is_not_there_is_empty() -> None:
    """No exception, as in Go."""
    metadata = Metadata()
    assert metadata.get("a") == ""
    assert metadata.values("a") == []
    assert "a" not in metadata
    assert 5 not in metadata


def test_a_clone_and_a_list_of_values_are_copies() -> None:
    """Changing them leaves the original alone."""
    metadata = Metadata([("a", "1")])
    clone = metadata.clone()
    assert clone == metadata
    clone.add("a", "2")
    metadata.values("a").append("3")
    assert metadata.values("a") == ["1"]
    assert clone != metadata
    assert metadata != {"a": ["1"]}
    assert repr(clone) == "Metadata([('a', '1'), ('a', '2')])"


async def test_metadata_of_a_call_stays_in_its_task() -> None:
    """Two calls at once on one server do not see each other's."""
    turn = asyncio.Barrier(2)

    async def call(value: str) -> tuple[str, bool]:
        server_metadata.set(Metadata([("id", value)]))
        await turn.wait()
        found = server_metadata.get()
        return (found.get("id") if found else ""), client_metadata.get() is None

    assert await asyncio.gather(call("1"), call("2")) == [("1", True), ("2", True)]
    assert server_metadata.get() is None
