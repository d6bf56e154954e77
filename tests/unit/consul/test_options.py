"""What people write to say where Consul is."""

from pathlib import Path

import pytest
import trustme

from kit.consul import ConsulClient, ConsulOptions, ConsulTls


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("h", ConsulOptions("h:8500")),
        ("h:1", ConsulOptions("h:1")),
        ("[::1]", ConsulOptions("[::1]:8500")),
        ("consul://h", ConsulOptions("h:8500")),
        ("http://h:1/", ConsulOptions("h:1")),
        ("https://h:8501", ConsulOptions("h:8501", tls=ConsulTls())),
        (
            "consul://h:1/dtmservice?token=t&dc=east&ns=team",
            ConsulOptions("h:1", "t", datacenter="east", namespace="team"),
        ),
        (
            "consul://h:1/x?tls=true&caPath=ca.pem&certPath=c.pem&certKeyPath=k.pem",
            ConsulOptions("h:1", tls=ConsulTls("ca.pem", "c.pem", "k.pem")),
        ),
    ],
)
def test_every_form_is_understood(text: str, options: ConsulOptions) -> None:
    assert ConsulOptions.of(text) == options
    assert ConsulOptions.of(options) is options


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("etcd://h:1", "unknown scheme 'etcd'; write host:8500"),
        ("h1:1,h2:2", "name one agent, the one on this machine"),
        ("consul://", "not host:port"),
        ("h:0", "'0' is not a port"),
        ("h:http", "'http' is not a port"),
        ("::1:8500", "not host:port"),
        ("consul://user:secret@h:1", "consul knows no user; write ?token="),
        ("consul://h:1?tls=true&certPath=c.pem", "key is missing; cert and key go together"),
        ("consul://h:1?token=%C3%A4", "characters that no header can carry"),
        ("consul://h:1?token=a%0Ab", "characters that no header can carry"),
    ],
)
def test_everything_else_is_refused_without_telling_secrets(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="consul") as caught:
        ConsulOptions.of(text)
    assert complaint in str(caught.value)
    assert "secret" not in str(caught.value)


def test_times_are_more_than_nothing() -> None:
    with pytest.raises(ValueError, match="timeout: 0 is not more than 0"):
        ConsulOptions(timeout=0)
    with pytest.raises(ValueError, match="wait: -1 is not more than 0"):
        ConsulOptions(wait=-1)


def test_a_token_is_not_shown() -> None:
    """Options end up in logs and tracebacks."""
    assert "t0p" not in repr(ConsulOptions(token="t0p"))


def test_files_of_tls_are_looked_at_when_the_client_is_made(tmp_path: Path) -> None:
    """Absent, or no PEM: the file is named."""
    with pytest.raises(ValueError, match=r"consul tls: nowhere\.pem: .*No such file"):
        ConsulClient(ConsulOptions(tls=ConsulTls("nowhere.pem")))
    broken = tmp_path / "broken.pem"
    broken.write_text("x")
    with pytest.raises(ValueError, match=r"broken\.pem: "):
        ConsulClient(ConsulOptions(tls=ConsulTls(broken)))
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    ConsulClient(ConsulOptions(tls=ConsulTls(tmp_path / "ca.pem")))
