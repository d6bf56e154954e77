"""Loading, reloading, observing."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

import kit.config
import kit.log
from kit.config import Config, ConfigError, Duration, KeyValue, Value
from kit.errors import ServiceUnavailable
from tests.unit.config.helpers import ListSource, Log, Seen, loaded, refused, variable, yaml


class Settings(BaseModel):
    timeout: Duration = 1.0
    name: str = ""


@pytest.fixture
def log() -> Iterator[Log]:
    """What is logged."""
    stream = Log()
    kit.log.configure(stream=stream, records=False)
    yield stream
    kit.log.configure(records=False)


async def test_each_item_that_was_loaded_is_a_line_of_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Spec §17.1, byte for byte; variables are not listed, there are hundreds."""
    await loaded(yaml("a: 1"), variable("B", "2"), KeyValue("c.json", b"{}", "json", "x/c.json"))
    assert capsys.readouterr().err == (
        "INFO msg=config loaded: config.yaml format: yaml\n"
        "INFO msg=config loaded: c.json format: json\n"
    )


async def test_problems_of_all_items_and_sources_come_at_once() -> None:
    """Also those of placeholders, and of a source that has nothing."""
    absent = ListSource()
    absent.failure = ConfigError.of("no such file: x", "config")
    config = Config(absent, ListSource(yaml("a: ["), yaml("b: 1\nb: 2"), yaml("c: ${c}")))
    with pytest.raises(ConfigError) as caught:
        await config.load()
    assert [problem.origin for problem in caught.value.problems] == [
        "config",
        "configs/config.yaml:1:5",
        "configs/config.yaml:2",
        "configs/config.yaml:1",
    ]


async def test_a_failed_load_keeps_what_was_loaded_before() -> None:
    """The process goes on with what it had."""
    source = ListSource(yaml("a: 1"))
    config = Config(source)
    await config.load()
    source.items = [yaml("a: [")]
    with pytest.raises(ConfigError):
        await config.load()
    assert config.value("a").raw == 1


async def test_reading_before_loading_is_a_fault_of_the_program() -> None:
    """Not an empty configuration."""
    with pytest.raises(RuntimeError, match="read before it was loaded"):
        Config().value("a")


async def test_no_sources_are_an_empty_configuration() -> None:
    """All defaults."""
    assert (await loaded()).scan(Settings) == Settings()


async def test_an_observer_hears_of_its_own_value_only() -> None:
    """A changed neighbour, a comment, another order are no change."""
    source = ListSource(yaml("a: {x: 1, y: 1}\nb: 1"))
    config = Config(source)
    await config.load()
    seen, other, whole = Seen(), Seen(), Seen()
    config.watch("a.x", seen)
    config.watch("a", other)
    config.watch("", whole)
    async with config.watching():
        source.put(yaml("# comment\nb: 1\na: {y: 1, x: 1}"))
        source.put(yaml("a: {x: 1, y: 2}\nb: 1"))
        await other.count(1)
        source.put(yaml("a: {x: 2, y: 2}\nb: 1"))
        await seen.count(1)
        await whole.count(2)
    assert seen.values == [("a.x", 2)]
    assert other.values == [("a", {"x": 1, "y": 2}), ("a", {"x": 2, "y": 2})]
    assert config.value("a.x").raw == 2


async def test_keys_that_were_deleted_are_gone_and_may_come_back() -> None:
    """In kratos they stay; the observer hears ``None``."""
    source = ListSource(yaml("a: {x: 1}"))
    config = Config(source)
    await config.load()
    seen = Seen()
    config.watch("a.x", seen)
    async with config.watching():
        source.put(yaml("a: {}"))
        await seen.count(1)
        assert config.find("a.x") is None
        source.put(yaml("a: {x: null}"))
        await seen.count(2)
        source.put(yaml("a: {x: 3}"))
        assert await seen.count(3) == [("a.x", None), ("a.x", None), ("a.x", 3)]


async def test_what_changed_between_loading_and_watching_is_not_missed() -> None:
    """The first thing a watch does is to look."""
    source = ListSource(yaml("a: 1"))
    config = Config(source)
    await config.load()
    source.items = [yaml("a: 2")]
    seen = Seen()
    config.watch("a", seen)
    async with config.watching():
        assert await seen.count(1) == [("a", 2)]


async def test_a_broken_configuration_is_logged_once_and_the_old_one_stays(log: Log) -> None:
    """With its place; when it is right again that is said, too."""
    source = ListSource(yaml("a: 1"))
    config = Config(source)
    await config.load()
    seen = Seen()
    config.watch("a", seen)
    async with config.watching():
        await source.until(lambda: source.loads == 2)
        for load in (3, 4, 5):
            source.put(yaml("a: 1\n b: 2"))
            await source.until(lambda load=load: source.loads == load)
        source.put(failure=ServiceUnavailable("REGISTRY_UNAVAILABLE", "etcd did not answer"))
        await log.holds("etcd did not answer")
        assert config.value("a").raw == 1
        source.put(yaml("a: 2"))
        await seen.count(1)
    assert log.getvalue() == (
        "INFO msg=config loaded: config.yaml format: yaml\n"
        "ERROR msg=config not reloaded, the old one stays: "
        "configs/config.yaml:2:3: mapping values are not allowed here\n"
        "ERROR msg=config not reloaded, the old one stays: ServiceUnavailable: error: code = 503 "
        "reason = REGISTRY_UNAVAILABLE message = etcd did not answer metadata = map[] "
        "cause = <nil>\n"
        "INFO msg=config is right again\n"
        "INFO msg=config reloaded\n"
    )


async def test_a_change_that_a_scanned_model_refuses_is_not_taken(log: Log) -> None:
    """Whoever reads the configuration later finds one that fits."""
    source = ListSource(yaml("timeout: 2s\nname: a"))
    config = Config(source)
    await config.load()
    config.scan(Settings)
    seen = Seen()
    config.watch("timeout", seen)
    async with config.watching():
        source.put(yaml("timeout: 3\nname: b"))
        await log.holds(
            "the old one stays: configs/config.yaml:1: timeout: a duration needs a unit"
        )
        assert config.value("name").raw == "a"
        source.put(yaml("timeout: 3s\nname: c"))
        await seen.count(1)
        assert config.scan(Settings) == Settings(timeout=3.0, name="c")


async def test_a_failing_observer_does_not_stop_the_others(log: Log) -> None:
    """Its stack is in the log."""
    source = ListSource(yaml("a: 1"))
    config = Config(source)
    await config.load()

    def fail(path: str, value: Value | None) -> None:
        raise RuntimeError("observer")

    seen = Seen()
    config.watch("a", fail)
    config.watch("a", seen)
    async with config.watching():
        source.put(yaml("a: 2"))
        await seen.count(1)
        source.put(yaml("a: 3"))
        await seen.count(2)
    assert log.getvalue().count("ERROR msg=observer of config a failed\n    Traceback") == 2


async def test_a_value_in_hand_does_not_change() -> None:
    """kratos updates the object in place; here a reader keeps one consistent state."""
    source = ListSource(yaml("a: {x: 1}"))
    config = Config(source)
    await config.load()
    value = config.value("a")
    source.items = [yaml("a: {x: 2}")]
    await config.load()
    assert value.raw == {"x": 1}
    assert config.value("a").raw == {"x": 2}


async def test_watching_ends_with_its_block() -> None:
    """No task is left, whether the block ends well or not; its own error comes out as it is."""
    config = Config(ListSource(yaml("a: 1")))
    await config.load()

    async def fail() -> None:
        async with config.watching():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_missing_file_is_told_in_one_line() -> None:
    """What ``-conf nowhere.yaml`` prints."""
    config = Config(kit.config.FileSource("nowhere.yaml"))
    with pytest.raises(ConfigError, match=r"^config: no such file: nowhere.yaml$"):
        await config.load()


async def test_wrong_items_are_told_in_one_line_each() -> None:
    """The text of the error is what a command prints."""
    assert await refused(yaml("a: 1\na: 2"), yaml("b: ${b}")) == [
        "configs/config.yaml:2: a: given twice, first on line 1",
        "configs/config.yaml:1: b: the placeholder refers back to itself: b -> b",
    ]


def test_importing_the_protocol_needs_no_implementation() -> None:
    """``import kit.config`` in a source of one's own is cheap; every exported name exists."""
    program = (
        "import sys, kit.config\n"
        "heavy = {'grpc', 'pydantic', 'watchfiles', 'yaml', 'structlog'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "names = set(kit.config.__all__) - {'EtcdSource'}\n"
        "for name in names: getattr(kit.config, name)\n"
        "assert 'grpc' not in sys.modules\n"
        "assert kit.config.EtcdSource\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = kit.config.Nothing
