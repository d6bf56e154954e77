"""What a user of the kit tests with: time by hand, real servers, checks for own implementations."""

from kit.etcd.program import find_etcd
from kit.ports import free_port
from kit.testing.barrier import check_barrier
from kit.testing.clock import ManualClock
from kit.testing.consul import ConsulServer, consul_server, find_consul
from kit.testing.coordinator import Coordinator
from kit.testing.etcd import EtcdServer, EtcdServerTls, etcd_cluster, etcd_server
from kit.testing.registry import check_registry
from kit.testing.store import check_store

__all__ = [
    "ConsulServer",
    "Coordinator",
    "EtcdServer",
    "EtcdServerTls",
    "ManualClock",
    "check_barrier",
    "check_registry",
    "check_store",
    "consul_server",
    "etcd_cluster",
    "etcd_server",
    "find_consul",
    "find_etcd",
    "free_port",
]
