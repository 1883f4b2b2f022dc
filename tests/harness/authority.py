"""A certificate authority for tests: makes the certificates that a test needs, good and bad, in milliseconds."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

KeyKind: TypeAlias = Literal["ecdsa", "rsa"]
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its private key, PEM, as a Secret holds them."""

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def serial(self) -> int:
        """The certificate's serial number: which of several was served."""
        return x509.load_pem_x509_certificate(self.certificate).serial_number


def served_serial(sock: ssl.SSLSocket) -> int:
    """Return the serial number of the certificate that the other side of a TLS connection showed."""
    der = sock.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


class Authority:
    """One self-signed authority."""

    def __init__(self, path: Path) -> None:
        """Make it, and write its certificate to `path` (PEM)."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "atsk8s tests")])
        key_usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        made = (
            self._builder(self._name, self._key.public_key(), _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = path
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def client_context(self) -> ssl.SSLContext:
        """Return a TLS client that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.path))

    def pair(
        self, hosts: Sequence[str], *, kind: KeyKind = "ecdsa", expired: bool = False, passphrase: bytes | None = None
    ) -> Pair:
        """Make a certificate for `hosts` (wildcards too); `expired` a day ago; the key encrypted by `passphrase`."""
        key = ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        made = (
            self._builder(subject, key.public_key(), -_DAY if expired else _DAY)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        pem = serialization.Encoding.PEM
        return Pair(
            certificate=made.public_bytes(pem),
            key=key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, life: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - 2 * _DAY).not_valid_after(now + life)
