"""What goes wrong with Consul, translated once from HTTP.

::

    kit.errors.Error
    └── ConsulError             500 CONSUL_ERROR        an answer that cannot be understood
        ├── ConsulUnavailable   503 CONSUL_UNAVAILABLE  nobody answered, or its servers are away
        ├── ConsulRefused       400 CONSUL_REFUSED      it does not take what was sent
        └── ConsulDenied        403 CONSUL_DENIED       the token is unknown or may not do this

Every message names the address.
"""

from typing import ClassVar

from kit.errors import Error


class ConsulError(Error):
    """Consul said no in a way that has no class of its own.

    Attributes:
        address: ``host:port`` of the agent.
    """

    CODE: ClassVar[int] = 500
    REASON: ClassVar[str] = "CONSUL_ERROR"

    def __init__(self, address: str, message: str) -> None:
        super().__init__(self.CODE, self.REASON, f"consul at {address}: {message}")
        self.address = address


class ConsulUnavailable(ConsulError):
    """The agent did not answer, or says that the servers behind it do not."""

    CODE = 503
    REASON = "CONSUL_UNAVAILABLE"


class ConsulRefused(ConsulError):
    """The request has something in it that Consul does not take."""

    CODE = 400
    REASON = "CONSUL_REFUSED"


class ConsulDenied(ConsulError):
    """The token is unknown, or may not do this."""

    CODE = 403
    REASON = "CONSUL_DENIED"
