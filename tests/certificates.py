"""Certificates of an authority of our own, for servers on 127.0.0.1 and for their clients."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority, and what it has issued; each file is PEM, `server` and `client` with keys."""

    ca: Path
    server: Path
    client: Path

    def context(self, *, of_clients: bool = False) -> ssl.SSLContext:
        """What a server of ours speaks TLS by; it may want to see its clients' certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        if of_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context


def authority(folder: Path) -> Authority:
    """A new one, in a folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("an authority of tests")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    root = _signed(name, name, key.public_key(), key, constraints)
    paths = Authority(folder / "ca.pem", folder / "server.pem", folder / "client.pem")
    paths.ca.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    for path, who in ((paths.server, "a server of tests"), (paths.client, "a client of tests")):
        own = ec.generate_private_key(ec.SECP256R1())
        issued = _signed(_name(who), name, own.public_key(), key, address)
        secret = own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(secret + issued.public_bytes(serialization.Encoding.PEM))
    return paths


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    by: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=True)
        .sign(by, hashes.SHA256())
    )
