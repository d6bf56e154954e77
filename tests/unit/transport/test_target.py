"""What a client may be told to call; kratos-wire §5, dtm-protocol §19."""

import pytest

from kit.transport.grpc import Target, parse_target


@pytest.mark.parametrize(
    ("text", "service", "registry", "addresses"),
    [
        ("discovery:///trans", "trans", (), ()),
        ("discovery://127.0.0.1:2379/trans", "trans", ("127.0.0.1:2379",), ()),
        ("etcd://h1:1,h2:2/dtmservice", "dtmservice", ("h1:1", "h2:2"), ()),
        ("etcd:///a.b-c/d", "a.b-c/d", (), ()),
        ("direct:///h1:1,h2:2", "", (), ("h1:1", "h2:2")),
        ("direct://ignored:1/h1:1", "", (), ("h1:1",)),
        ("passthrough:///h1:1", "", (), ("h1:1",)),
        ("localhost:36790", "", (), ("localhost:36790",)),
        ("[::1]:36790", "", (), ("[::1]:36790",)),
        ("static:///h1:1,h2:2,h1:1", "", (), ("h1:1", "h2:2")),
        ("consul://h:8500/trans", "trans", ("consul://h:8500",), ()),
    ],
)
def test_every_form_is_understood(
    text: str, service: str, registry: tuple[str, ...], addresses: tuple[str, ...]
) -> None:
    assert parse_target(text) == Target(text, service, registry, addresses)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is not host:port"),
        ("localhost", "'localhost' is not host:port"),
        ("localhost:", "'' in 'localhost:' is not a port from 1 to 65535"),
        ("localhost:http", "'http' in 'localhost:http' is not a port"),
        ("localhost:0", "'0' in 'localhost:0' is not a port"),
        ("localhost:65536", "'65536' in 'localhost:65536' is not a port"),
        ("::1:9000", "'::1:9000' is not host:port"),
        ("h:1/pkg.S/M", "'h:1/pkg.S/M' is not host:port"),
        ("discovery:///", "names no service; write for example discovery:///trans"),
        ("discovery://127.0.0.1:2379", "names no service"),
        ("discovery://127.0.0.1/trans", "'127.0.0.1' is not host:port"),
        ("etcd://h1:1,/trans", "'' is not host:port"),
        ("discovery:///trans?tls=true", "'?' and '#' have no meaning here"),
        ("direct:///", "'' is not host:port"),
        ("direct:///h:1/pkg.S/M", "'h:1/pkg.S/M' is not host:port"),
        ("nacos://h:8848/trans", "scheme 'nacos' is not known; write discovery:///name"),
        ("static://h1:1,h2:2", "no list after a third slash; write static:///h1:1,h2:2"),
        ("dns:///trans.example", "'trans.example' is not host:port"),
        ("dns://trans.example:9000", "write dns:///trans.example:9000"),
        ("dns://8.8.8.8/trans.example:9000", "write dns:///trans.example:9000"),
        ("http://h:1/x", "scheme 'http' is not known"),
    ],
)
def test_everything_else_is_refused_with_the_target_and_what_is_wrong(
    text: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match="target") as caught:
        parse_target(text)
    assert complaint in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["dns:///trans.example:9000", "dns:trans.example:9000"])
def test_a_name_is_looked_up_by_the_kit(text: str) -> None:
    """In both spellings of gRPC."""
    assert parse_target(text) == Target(text, name="trans.example:9000")


def test_what_only_an_engine_understands_is_left_to_it() -> None:
    """A path of a socket, for one."""
    text = "unix:/run/trans.sock"
    assert parse_target(text) == Target(text, addresses=(text,), by_engine=True)
