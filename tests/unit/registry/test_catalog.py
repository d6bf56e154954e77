"""The form of an instance in Consul's catalog."""

from typing import Any

import pytest

from kit.errors import BadRequest
from kit.registry import ServiceInstance
from kit.registry.catalog import entry_of, instance_of

KRATOS = ServiceInstance(
    "host-1", "trans", "v1.0", {"weight": "10"}, ("grpc://10.0.0.5:9000", "http://10.0.0.5:8000")
)


def held(instance: ServiceInstance, *tags: str) -> dict[str, Any]:
    """What Consul would answer for ``instance``, as Go writes it: maps in order, null for empty."""
    entry = entry_of(instance, tags)
    fields = {key: value for key, value in entry.fields.items() if key != "Name"}
    addresses = dict(sorted(fields["TaggedAddresses"].items()))
    if fields["Address"]:
        addresses["lan_ipv4"] = {"Address": fields["Address"], "Port": fields["Port"]}
    return {
        **fields,
        "ID": entry.id,
        "Service": instance.name,
        "Meta": fields["Meta"] or None,
        "TaggedAddresses": addresses or None,
    }


def test_an_instance_has_the_form_of_kratos_and_no_tag_of_ours() -> None:
    """contrib/registry/consul/client.go, Register."""
    entry = entry_of(KRATOS, ("blue",))
    assert entry.id == "host-1"
    assert entry.addresses == ("10.0.0.5:9000", "10.0.0.5:8000")
    assert entry.fields == {
        "Name": "trans",
        "Tags": ["version=v1.0", "blue"],
        "Meta": {"weight": "10"},
        "TaggedAddresses": {
            "grpc": {"Address": "grpc://10.0.0.5:9000", "Port": 9000},
            "http": {"Address": "http://10.0.0.5:8000", "Port": 8000},
        },
        "Address": "10.0.0.5",
        "Port": 9000,
    }


@pytest.mark.parametrize(
    "instance",
    [
        KRATOS,
        ServiceInstance("1", "a"),
        ServiceInstance("1", "a", metadata=None),
        ServiceInstance("", "a"),
        ServiceInstance("1", "a", "v=1=2"),
        ServiceInstance("1", "a", metadata={"名": "值", "k": "x" * 513, "": "y"}),
        ServiceInstance("1", "a", metadata={f"k{number}": "v" for number in range(100)}),
        ServiceInstance("1", "a", endpoints=("http://h:1", "grpc://h:2")),
        ServiceInstance("1", "a", endpoints=("grpc://h:1", "grpc://h:2")),
        ServiceInstance("1", "a", endpoints=("grpc://[fd00::1]:1",)),
        ServiceInstance("1", "a", endpoints=("nonsense", "grpc://h:port", "grpc://0.0.0.0:1")),
    ],
)
def test_what_is_registered_is_read_back(instance: ServiceInstance) -> None:
    """Whatever the form of kratos would lose; and the entry knows itself again."""
    service = held(instance, "blue")
    assert instance_of(service) == instance
    assert entry_of(instance, ("blue",)).stands_in(service)
    assert not entry_of(instance, ("green",)).stands_in(service)


def test_consul_is_given_nothing_that_it_refuses() -> None:
    """agent/structs/structs.go, ValidateServiceMetadata; no address that means all."""
    metadata = {"a-1_A": "v", "名": "v", "long": "é" * 300, **{f"k{n}": "v" for n in range(99)}}
    fields = entry_of(
        ServiceInstance("1", "a", metadata=metadata, endpoints=("grpc://0.0.0.0:1", "grpc://h:2"))
    ).fields
    assert len(fields["Meta"]) == 64
    assert fields["Meta"]["a-1_A"] == "v"
    assert not {"名", "long"} & set(fields["Meta"])
    assert fields["Address"] == "h"


def test_under_another_id_the_instance_keeps_its_own() -> None:
    """Two services with one id on an agent."""
    entry = entry_of(KRATOS).known_by("trans-host-1")
    assert entry.known_by("trans-host-1") == entry
    service = {**entry.fields, "ID": entry.id, "Service": "trans"}
    assert instance_of(service) == KRATOS
    assert entry.stands_in(service)
    assert not entry_of(KRATOS).stands_in(service)


@pytest.mark.parametrize(
    ("service", "instance"),
    [
        ({}, ServiceInstance("", "")),
        (
            {"ID": "web", "Service": "web", "Port": 80, "Address": "10.0.0.1"},
            ServiceInstance("web", "web", endpoints=("http://10.0.0.1:80",)),
        ),
        (
            {"ID": "web", "Service": "web", "Port": 80, "Address": ""},
            ServiceInstance("web", "web", endpoints=("http://[fd00::9]:80",)),
        ),
        (
            {"ID": "1", "Service": "a", "Tags": ["kit={", "kit=[]", "version=1", "version=2"]},
            ServiceInstance("1", "a", "2"),
        ),
        (
            {"ID": "1", "Service": "a", "Tags": ['kit={"id":"1","name":"other"}']},
            ServiceInstance("1", "a"),
        ),
    ],
)
def test_what_others_registered_is_understood(
    service: dict[str, Any], instance: ServiceInstance
) -> None:
    """kratos' reader, and the address of the machine where the service has none."""
    assert instance_of(service, "fd00::9") == instance


def test_what_is_no_instance_is_refused() -> None:
    """As by the other registries."""
    with pytest.raises(BadRequest, match="name is empty"):
        entry_of(ServiceInstance("1", ""))
