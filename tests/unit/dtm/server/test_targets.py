"""Which branches may be called."""

import pytest

from kit.dtm.server.targets import Targets

FORBIDDEN = [
    "169.254.169.254",
    "169.254.1.1",
    "2852039166",
    "0xA9FEA9FE",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.254.169.254.",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "metadata.google.internal",
    "Metadata.Google.Internal.",
]


@pytest.mark.parametrize("host", FORBIDDEN)
@pytest.mark.parametrize(
    "form",
    [
        "http://{}/latest",
        "https://u:p@{}:8443/",
        "{}:80/a.B/C",
        "direct:///10.0.0.1:80,{}:80/a.B/C",
        "static:///10.0.0.1:80,{}:80/a.B/C",
        "dns:///{}:80/a.B/C",
    ],
)
def test_a_forbidden_address_is_refused_however_it_is_spelt(host: str, form: str) -> None:
    if "%25" in host and "http" not in form:
        host = host.replace("%25", "%")
    with pytest.raises(ValueError, match=r"is refused: .*"):
        Targets().check(form.format(host))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8081/api?x=1",
        "https://shop.example/a",
        "localhost:9000/a.B/C",
        "[::1]:9000/a.B/C",
        "discovery:///trans/a.B/C",
        "direct:///127.0.0.1:9000/a.B/C",
        "static:///127.0.0.1:9000/a.B/C",
        "consul://127.0.0.1:8500/trans/a.B/C",
        "topic://orders",
        "",
    ],
)
def test_ordinary_urls_pass_by_default(url: str) -> None:
    Targets().check(url)


@pytest.mark.parametrize("url", ["unix:///run/x.sock/a.B/C", "ftp://h/x", "file:///etc/passwd"])
def test_other_schemes_are_refused_and_the_setting_is_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"Targets\.Schemes"):
        Targets().check(url)
    if url.startswith("unix"):
        Targets(schemes=["unix"]).check(url)


def test_only_hosts_that_match_a_pattern_pass() -> None:
    targets = Targets(allow_hosts=["*.shop.internal", "trans"])
    targets.check("http://a.Shop.internal/x")
    targets.check("discovery:///trans/a.B/C")
    for url in ("http://shop.internal.evil/x", "discovery:///other/a.B/C", "10.0.0.1:1/a.B/C"):
        with pytest.raises(ValueError, match=r"Targets\.AllowHosts"):
            targets.check(url)


def test_networks_are_allowed_denied_and_taken_out_of_the_default_denial() -> None:
    inner = Targets(
        allow_networks=["10.0.0.0/8", "169.254.169.254/32"], deny_networks=["10.9.0.0/16"]
    )
    inner.check("http://10.1.2.3/")
    inner.check("http://[::ffff:10.1.2.3]/")
    inner.check("http://metadata.google.internal/")
    with pytest.raises(ValueError, match=r"Targets\.DenyNetworks"):
        inner.check("http://10.9.1.1/")
    with pytest.raises(ValueError, match=r"Targets\.AllowNetworks"):
        inner.check("http://192.0.2.1/")
    with pytest.raises(ValueError, match=r"127\.0\.0\.1 is denied"):
        Targets(deny_networks=["127.0.0.0/8"]).check("http://0.0.0.0/")


def test_a_network_that_is_none_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"Targets\.DenyNetworks: '10\.0'"):
        Targets(deny_networks=["10.0"])


@pytest.mark.parametrize("host", ["①⑥⑨.254.1.1", "169%2E254.1.1", "a b", "a\\@b", "fe80::1"])
def test_a_host_that_cannot_be_read_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="Targets"):
        Targets().check(f"{host}:80/a.B/C")


def test_only_names_need_a_look_at_their_addresses() -> None:
    assert Targets().names_in("direct:///127.0.0.1:1,shop:2,[::1]:3") == ("shop",)
    assert Targets().why_not("169.254.3.3")
    assert not Targets().why_not("10.0.0.1")
