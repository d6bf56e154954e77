"""A small client of Consul's HTTP API, for the registry and the configuration source.

What the kit needs is a dozen requests, and each of them is a line of JSON; docs/dependencies.md
says what the libraries do instead.

Source: hashicorp/consul api/ (the Go client that kratos uses) and its HTTP documentation.
"""

from kit.consul.client import ConsulClient, Listing
from kit.consul.errors import ConsulDenied, ConsulError, ConsulRefused, ConsulUnavailable
from kit.consul.follow import follow
from kit.consul.options import DEFAULT_PORT, ConsulOptions, ConsulTls

__all__ = [
    "DEFAULT_PORT",
    "ConsulClient",
    "ConsulDenied",
    "ConsulError",
    "ConsulOptions",
    "ConsulRefused",
    "ConsulTls",
    "ConsulUnavailable",
    "Listing",
    "follow",
]
