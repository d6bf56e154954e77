"""What people write for an etcd, and what is said when it cannot be read."""

import re
from pathlib import Path

import pytest

from kit.etcd import EtcdClient, EtcdOptions, EtcdTls


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("127.0.0.1:2379", EtcdOptions(("127.0.0.1:2379",))),
        ("h1:1,h2:2", EtcdOptions(("h1:1", "h2:2"))),
        ("etcd", EtcdOptions(("etcd:2379",))),
        ("[::1]", EtcdOptions(("[::1]:2379",))),
        ("etcd://h1:1,h2:2/trans", EtcdOptions(("h1:1", "h2:2"))),
        ("discovery://127.0.0.1:2379/dtmservice", EtcdOptions()),
        ("http://h1:1,http://h2:2", EtcdOptions(("h1:1", "h2:2"))),
        (["http://h1:1", "h2:2"], EtcdOptions(("h1:1", "h2:2"))),
        ("https://h1:1", EtcdOptions(("h1:1",), tls=EtcdTls())),
        ("etcds://h1:1", EtcdOptions(("h1:1",), tls=EtcdTls())),
        ("etcd://u:p%40ss@h1:1", EtcdOptions(("h1:1",), "u", "p@ss")),
        (
            "etcd://h1:1/x?tls=true&caPath=/ca&certPath=/c&certKeyPath=/k",
            EtcdOptions(("h1:1",), tls=EtcdTls("/ca", "/c", "/k")),
        ),
        (EtcdOptions(("h1:1",), timeout=1.0), EtcdOptions(("h1:1",), timeout=1.0)),
    ],
    ids=str,
)
def test_every_form_that_people_write_is_read(
    written: str | list[str] | EtcdOptions, options: EtcdOptions
) -> None:
    """URLs, lists, targets of dtm-driver-kratos with its query; 2379 where no port is named."""
    assert EtcdOptions.of(written) == options


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("", "etcd endpoint '': not host:port; write host:2379"),
        ([], "etcd endpoints: none given"),
        ("h1:x", "etcd endpoint 'h1:x': 'x' is not a port"),
        ("h1:70000", "'70000' is not a port"),
        ("h1:1,,h2:2", "etcd endpoint '': not host:port"),
        ("::1:2379", "etcd endpoint '::1:2379': not host:port"),
        ("consul://h:1", "etcd endpoint 'consul://h:1': unknown scheme 'consul'"),
        (["http://h1:1", "https://h2:2"], "etcd endpoint 'https://h2:2': all members need"),
        ("etcd://h:1?tls=true&certPath=/c", "etcd tls: key is missing"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused(written: str | list[str], complaint: str) -> None:
    """The error names the value and the forms that can be."""
    with pytest.raises(ValueError, match=re.escape(complaint)):
        EtcdOptions.of(written)


@pytest.mark.parametrize("name", ["timeout", "keepalive"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_times_are_more_than_nothing(name: str, seconds: float) -> None:
    """A call that may take no time would never be answered."""
    with pytest.raises(ValueError, match=f"etcd {name}: {seconds} is not more than 0"):
        EtcdOptions(**{name: seconds})


def test_a_password_is_in_no_message() -> None:
    """Neither in the text of options nor in the errors about a URL."""
    assert "secret" not in repr(EtcdOptions.of("etcd://u:secret@h:1"))
    for url in ("consul://u:secret@h:1", "etcd://u:secret@h:x", "etcd://u:secret@h:1,etcd://h:2"):
        with pytest.raises(ValueError, match="etcd endpoint") as caught:
            EtcdOptions.of(url)
        assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """When the client is made, not when it first connects."""
    missing = tmp_path / "ca.pem"
    with pytest.raises(ValueError, match=r"etcd tls\.ca: .*ca\.pem: No such file"):
        EtcdClient(EtcdOptions(tls=EtcdTls(ca=missing)))
