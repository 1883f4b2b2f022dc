"""Certificates and keys for tests: made once, small, and of every kind that matters."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def certificate_of(
    key: PrivateKey, name: str, *, days: int = 365, issuer: tuple[PrivateKey, str] | None = None
) -> x509.Certificate:
    """A certificate for `name`, valid for `days` from `NOT_BEFORE`, self-signed or by `issuer`."""
    signer, signer_name = issuer or (key, name)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, signer_name)]))
        .public_key(key.public_key())
        .serial_number(len(name) + 1)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_BEFORE + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), x509.DNSName(f"*.{name}")]), critical=False)
        .sign(signer, hashes.SHA256())
    )


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate's PEM."""
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: PrivateKey, passphrase: bytes = b"") -> bytes:
    """A key's PEM, encrypted if there is a passphrase."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@functools.cache
def keys() -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]:
    """Two ECDSA keys and an RSA one, the same throughout a run."""
    return ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)


@functools.cache
def pairs() -> tuple[Mapping[str, bytes], ...]:
    """The data of TLS Secrets: good ones, one that expired in 2026, and bad ones."""
    one, other, big = keys()
    good = pem(certificate_of(one, "w.example"))
    return (
        {"tls.crt": good, "tls.key": key_pem(one)},
        {"tls.crt": pem(certificate_of(big, "w.example")), "tls.key": key_pem(big)},
        {"tls.crt": pem(certificate_of(other, "w.example", days=1)), "tls.key": key_pem(other)},
        {"tls.crt": good, "tls.key": key_pem(other)},
        {"tls.crt": good, "tls.key": b"garbage"},
        {"tls.crt": b"", "tls.key": key_pem(one)},
        {},
    )
