"""The contract of a registry as a suite that any implementation can be put to.

::

    @asynccontextmanager
    async def make():
        async with MyRegistry(...) as announcing, MyRegistry(...) as looking:
            yield announcing, looking

    async def test_my_registry_keeps_the_contract() -> None:
        await check_registry(make)

A check gets a :class:`~kit.registry.Registrar` and a :class:`~kit.registry.Discovery` of the same
registry; one object may be both. Names are made up anew for each check, so the registry may be one
that others use. To see each check as a test of its own, run :func:`check_registry` once for each of
:data:`REGISTRY_CHECKS`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from kit.errors import BadRequest
from kit.registry import Discovery, Registrar, ServiceInstance

MakeRegistry: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Registrar, Discovery]]]
"""Gives two ends of one registry."""

RegistryCheck: TypeAlias = Callable[[Registrar, Discovery], Awaitable[None]]

REGISTRY_CHECKS: list[RegistryCheck] = []
"""Every check, in the order of the contract; the name of each says what it pins."""

__all__ = ["REGISTRY_CHECKS", "MakeRegistry", "RegistryCheck", "check_registry"]

_CHECK_WITHIN = 20.0


async def check_registry(
    make: MakeRegistry, checks: Iterable[RegistryCheck] = REGISTRY_CHECKS
) -> None:
    """Run ``checks``, all by default, each on ends of its own.

    Raises:
        AssertionError: a promise is not kept; a note names the check.
    """
    for check in checks:
        try:
            async with asyncio.timeout(_CHECK_WITHIN), make() as (registrar, discovery):
                await check(registrar, discovery)
        except Exception as error:
            error.add_note(f"check_registry: {check.__name__.replace('_', ' ')}")
            raise


def _check(check: RegistryCheck) -> RegistryCheck:
    REGISTRY_CHECKS.append(check)
    return check


def _name() -> str:
    """A service name that nobody else has."""
    return f"check-{uuid.uuid4().hex[:12]}"


def _instance(name: str, id: str = "1", **fields: object) -> ServiceInstance:  # noqa: A002  its name
    endpoints = (f"grpc://10.0.0.5:{9000 + len(id)}",)
    return ServiceInstance(id, name, **{"endpoints": endpoints, **fields})  # type: ignore[arg-type]


Lists: TypeAlias = AsyncIterator[list[ServiceInstance]]


async def _until(lists: Lists, wanted: list[ServiceInstance]) -> None:
    """Read until ``wanted`` comes; states before it may be seen or skipped."""
    async for instances in lists:
        if instances == wanted:
            return
    raise AssertionError("the watch ended")


async def _first_of(lists: Lists, *steps: Awaitable[None]) -> list[ServiceInstance]:
    """The first list that comes while ``steps`` are done, one after the other."""
    waiting = asyncio.ensure_future(anext(lists))
    try:
        for step in steps:
            await step
            await asyncio.sleep(0)  # who waits gets a turn
        return await waiting
    finally:
        waiting.cancel()


async def _refused(call: Awaitable[None], *words: str) -> None:
    """``call`` raises BadRequest, and its message has these words."""
    try:
        await call
    except BadRequest as error:
        missing = [word for word in words if word not in error.message]
    else:
        raise AssertionError("no BadRequest was raised")
    assert not missing, f"{missing} not named in the error"


@_check
async def what_is_registered_is_found_as_it_was(registrar: Registrar, discovery: Discovery) -> None:
    """Every field comes back, texts of any language and HTML among them."""
    instance = ServiceInstance(
        "host-1",
        _name(),
        "v1.0-3-gdeadbee",
        {"weight": "10", "zone": "Zürich <a&b>", "名": "值\u2028\u2029🎫"},
        ("grpc://10.0.0.5:9000", "http://10.0.0.5:8000?a=1&b=2"),
    )
    await registrar.register(instance)
    assert await discovery.get_service(instance.name) == [instance]
    await registrar.deregister(instance)


@_check
async def nothing_and_empty_differ_in_metadata(registrar: Registrar, discovery: Discovery) -> None:
    """``None`` stays ``None`` and ``{}`` stays ``{}``: null and an empty object in JSON."""
    name = _name()
    unset, empty = _instance(name, "1", metadata=None), _instance(name, "2", metadata={})
    await registrar.register(unset)
    await registrar.register(empty)
    assert [found.metadata for found in await discovery.get_service(name)] == [None, {}]


@_check
async def an_instance_without_endpoints_is_kept(registrar: Registrar, discovery: Discovery) -> None:
    """A service that nobody calls, such as a cron job, may announce itself."""
    instance = _instance(_name(), endpoints=())
    await registrar.register(instance)
    assert await discovery.get_service(instance.name) == [instance]


@_check
async def halves_of_characters_become_whole_ones(
    registrar: Registrar, discovery: Discovery
) -> None:
    """Half a surrogate pair, which no UTF-8 can hold, is U+FFFD afterwards."""
    name = _name()
    await registrar.register(_instance(name, metadata={"host": "a\ud800b"}))
    (found,) = await discovery.get_service(name)
    assert found.metadata == {"host": "a\ufffdb"}


@_check
async def instances_are_ordered_by_id(registrar: Registrar, discovery: Discovery) -> None:
    """Whatever the order in which they came; none differ in case alone, which Consul ignores."""
    name = _name()
    for id_ in ("b", "10", "a", "2", "é", "C"):
        await registrar.register(_instance(name, id_))
    ids = [instance.id for instance in await discovery.get_service(name)]
    assert ids == ["10", "2", "C", "a", "b", "é"]


@_check
async def an_unknown_name_has_no_instances(_: Registrar, discovery: Discovery) -> None:
    """That is an empty list and not an error."""
    assert await discovery.get_service(_name()) == []


@_check
async def registering_an_id_again_replaces_it(registrar: Registrar, discovery: Discovery) -> None:
    """The later announcement is the only one."""
    name = _name()
    await registrar.register(_instance(name, version="v1"))
    later = _instance(name, version="v2", endpoints=("grpc://10.0.0.9:9000",))
    await registrar.register(later)
    assert await discovery.get_service(name) == [later]


@_check
async def deregistering_takes_back_one_instance(registrar: Registrar, discovery: Discovery) -> None:
    """The others stay."""
    name = _name()
    first, second = _instance(name, "1"), _instance(name, "2")
    await registrar.register(first)
    await registrar.register(second)
    await registrar.deregister(first)
    assert await discovery.get_service(name) == [second]


@_check
async def deregistering_what_is_not_there_is_no_error(
    registrar: Registrar, discovery: Discovery
) -> None:
    """Neither for an instance that never was nor for one that was taken back already."""
    instance = _instance(_name())
    await registrar.deregister(instance)
    await registrar.register(instance)
    await registrar.deregister(instance)
    await registrar.deregister(instance)
    assert await discovery.get_service(instance.name) == []


@_check
async def an_instance_can_come_back(registrar: Registrar, discovery: Discovery) -> None:
    """Registered, taken back and registered again it is there."""
    instance = _instance(_name())
    await registrar.register(instance)
    await registrar.deregister(instance)
    await registrar.register(instance)
    assert await discovery.get_service(instance.name) == [instance]


@_check
async def names_that_begin_alike_are_strangers(registrar: Registrar, discovery: Discovery) -> None:
    """``user``, ``user-admin`` and ``user/x`` are three services."""
    name = _name()
    for other in (f"{name}-admin", f"{name}/x", name[:-1], name.upper()):
        await registrar.register(_instance(other))
    assert await discovery.get_service(name) == []
    own = _instance(name)
    await registrar.register(own)
    assert await discovery.get_service(name) == [own]


@_check
async def a_name_is_needed(registrar: Registrar, _: Discovery) -> None:
    """The error names the field."""
    await _refused(registrar.register(_instance("")), "name")


@_check
async def metadata_is_text(registrar: Registrar, discovery: Discovery) -> None:
    """A number would be one that no kratos service can read; the error names key and value."""
    name = _name()
    await _refused(registrar.register(_instance(name, metadata={"weight": 10})), "weight", "10")
    assert await discovery.get_service(name) == []


@_check
async def a_watch_begins_with_what_is_there(registrar: Registrar, discovery: Discovery) -> None:
    """The first list comes at once."""
    instance = _instance(_name())
    await registrar.register(instance)
    async with discovery.watch(instance.name) as lists:
        assert await anext(lists) == [instance]


@_check
async def a_watch_begins_even_with_nothing(_: Registrar, discovery: Discovery) -> None:
    """The first list comes at once, and it is empty."""
    async with discovery.watch(_name()) as lists:
        assert await anext(lists) == []


@_check
async def a_watch_tells_of_each_change(registrar: Registrar, discovery: Discovery) -> None:
    """Comings, replacements and goings, each as the whole list ordered by id."""
    name = _name()
    first, second = _instance(name, "1"), _instance(name, "2")
    changed = _instance(name, "1", version="v2")
    async with discovery.watch(name) as lists:
        assert await anext(lists) == []
        await registrar.register(second)
        assert await anext(lists) == [second]
        await registrar.register(first)
        assert await anext(lists) == [first, second]
        await registrar.register(changed)
        assert await anext(lists) == [changed, second]
        await registrar.deregister(second)
        assert await anext(lists) == [changed]
        await registrar.deregister(changed)
        assert await anext(lists) == []


@_check
async def equal_lists_are_not_repeated(registrar: Registrar, discovery: Discovery) -> None:
    """Registering the same once more is no change: the next list is that of the next change."""
    instance = _instance(_name())
    later = _instance(instance.name, version="v2")
    await registrar.register(instance)
    async with discovery.watch(instance.name) as lists:
        assert await anext(lists) == [instance]
        steps = registrar.register(instance), registrar.register(later)
        assert await _first_of(lists, *steps) == [later]


@_check
async def a_neighbour_wakes_nobody(registrar: Registrar, discovery: Discovery) -> None:
    """What happens to ``user-admin`` is not told to who watches ``user``."""
    own = _instance(_name())
    neighbour = _instance(f"{own.name}-admin")
    async with discovery.watch(own.name) as lists:
        assert await anext(lists) == []
        steps = registrar.register(neighbour), registrar.register(own)
        assert await _first_of(lists, *steps) == [own]


@_check
async def a_slow_watcher_gets_the_latest_list(registrar: Registrar, discovery: Discovery) -> None:
    """Fifty changes later it is at the last one, after at most as many lists."""
    name = _name()
    async with discovery.watch(name) as lists:
        assert await anext(lists) == []
        for number in range(50):
            await registrar.register(_instance(name, version=f"v{number}"))
        await _until(lists, [_instance(name, version="v49")])


@_check
async def waiting_for_a_list_can_be_given_up(registrar: Registrar, discovery: Discovery) -> None:
    """A watch whose ``anext`` was cancelled goes on with the next one."""
    instance = _instance(_name())
    async with discovery.watch(instance.name) as lists:
        assert await anext(lists) == []
        waiting = asyncio.ensure_future(anext(lists))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await registrar.register(instance)
        assert await anext(lists) == [instance]


@_check
async def watchers_do_not_disturb_each_other(registrar: Registrar, discovery: Discovery) -> None:
    """Two watches of one name both hear, and the end of one does not end the other."""
    name = _name()
    first, second = _instance(name, "1"), _instance(name, "2")
    async with discovery.watch(name) as staying:
        async with discovery.watch(name) as leaving:
            await registrar.register(first)
            await _until(staying, [first])
            await _until(leaving, [first])
        await registrar.register(second)
        await _until(staying, [first, second])
