"""Who a server is and whom a client trusts, out of files."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from kit.transport.tls import ClientTls, ServerTls, client_context, server_context


def test_identities_are_read_from_files_and_fit_together(tmp_path: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("trans")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "chain", "key")}
    ca.cert_pem.write_to_path(str(files["ca"]))
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(str(files["chain"]), append=True)
    leaf.private_key_pem.write_to_path(str(files["key"]))
    server = ServerTls.from_files(files["chain"], files["key"], files["ca"])
    client = ClientTls.from_files(files["ca"], files["chain"], files["key"], "trans")
    assert client.server_name == "trans"
    asking = server_context(server, ["h2"])
    assert asking.verify_mode is ssl.CERT_REQUIRED
    assert asking.minimum_version is ssl.TLSVersion.TLSv1_2
    assert client_context(client, ["h2"]).verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(FileNotFoundError):
        ClientTls.from_files(tmp_path / "none.pem")


def test_a_key_of_another_certificate_is_refused() -> None:
    ca = trustme.CA()
    one, two = ca.issue_cert("a"), ca.issue_cert("b")
    chain = b"".join(pem.bytes() for pem in one.cert_chain_pems)
    for make in (
        lambda: ServerTls(chain, two.private_key_pem.bytes()),
        lambda: ServerTls(b"nonsense", b"nonsense"),
        lambda: ClientTls(None, chain, two.private_key_pem.bytes()),
        lambda: ClientTls(None, chain, _encrypted(one)),
    ):
        with pytest.raises(ValueError, match="certificate and private key cannot be used"):
            make()
    with pytest.raises(ValueError, match="a certificate needs its private key"):
        ClientTls(None, chain)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"\xff"])
def test_authorities_that_are_none_are_refused(text: bytes) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("a")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    with pytest.raises(ValueError, match="tls: ca has no certificate in PEM form"):
        ClientTls(text)
    with pytest.raises(ValueError, match="tls: client_ca has no certificate in PEM form"):
        ServerTls(chain, leaf.private_key_pem.bytes(), text)


def _encrypted(leaf: trustme.LeafCert) -> bytes:
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_an_endpoint_says_that_it_speaks_tls() -> None:
    """In the new form, or the old one on request; never in both."""
    leaf = trustme.CA().issue_cert("a")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    tls = ServerTls(chain, leaf.private_key_pem.bytes())
    assert tls.endpoint("grpc", "h:1") == "grpcs://h:1"
    old = replace(tls, is_secure_query=True)
    assert old.endpoint("http", "h:1") == "http://h:1?isSecure=true"
