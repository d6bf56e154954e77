"""The ``default`` driver: ``host:port/package.Service/Method``, no discovery.

Source: dtm-labs/dtm client/dtmgrpc/dtmgimp/grpc_clients.go and dtmdriver's default driver.
"""

from kit.dtm.driver import BranchUrl


def parse_direct(url: str) -> BranchUrl:
    """Split at the first slash.

    Raises:
        ValueError: there is none, or one side of it is empty.

    >>> parse_direct("localhost:9000/busi.Busi/TransIn")
    BranchUrl(target='localhost:9000', method='/busi.Busi/TransIn')
    """
    target, slash, method = url.partition("/")
    if not slash:
        raise ValueError(f"bad url: '{url}'. no '/' found")
    return checked(url, target, method)


def checked(url: str, target: str, method: str) -> BranchUrl:
    """The parts, unless one of them cannot be right."""
    if not target or method.count("/") != 1 or not all(method.split("/")):
        raise ValueError(f"bad url: '{url}'. write host:port/package.Service/Method")
    return BranchUrl(target, f"/{method}")


class DirectDriver:
    """Branches by address."""

    name = "default"

    def parse(self, url: str) -> BranchUrl:
        """Split ``url``.

        Raises:
            ValueError: it has a scheme, for which ``MicroService.Driver`` must name another driver;
                in dtm's words, which people search for.
        """
        if "//" in url:
            raise ValueError(f"call dtmdriver.Use() before you use custom scheme for '{url}'")
        return parse_direct(url)
