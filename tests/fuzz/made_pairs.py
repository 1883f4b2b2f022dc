"""Certificates and keys for fuzz inputs: made when a run starts, as no private key is kept in a repository or a corpus."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.property.pairs import NOT_BEFORE, PrivateKey, certificate_of, keys

CERTIFICATE_MARK = b"@certificate@"  # stands for the base64 of a PEM file
KEY_MARK = b"@key@"


@functools.cache
def certificates() -> Mapping[str, bytes]:
    """DER by name.  `one`, `other` and `big` are of these keys, `leaf` is `one`'s by `other`."""
    one, other, big = keys()
    made = {
        "one": certificate_of(one, "w.example"),
        "other": certificate_of(other, "i.example"),
        "big": certificate_of(big, "w.example"),
        "leaf": certificate_of(one, "w.example", issuer=(other, "i.example")),
        "expired": certificate_of(one, "w.example", days=1),
        "edwards": _edwards_certificate(),
    }
    return {name: found.public_bytes(Encoding.DER) for name, found in made.items()}


@functools.cache
def private_keys() -> Mapping[str, tuple[str, bytes]]:
    """PEM label and DER, by name."""
    one, other, big = keys()
    modern: dict[str, PrivateKey | ed25519.Ed25519PrivateKey] = {"one": one, "other": other, "big": big, "edwards": _edwards()}
    found = {
        name: ("PRIVATE KEY", key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())) for name, key in modern.items()
    }
    for label, name in (("EC", "one"), ("RSA", "big")):
        der = modern[name].private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        found[f"old-{name}"] = f"{label} PRIVATE KEY", der
    return found


@functools.cache
def _edwards() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def _edwards_certificate() -> x509.Certificate:
    nobody = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(nobody).issuer_name(nobody).public_key(_edwards().public_key())
    return (
        builder.serial_number(1).not_valid_before(NOT_BEFORE).not_valid_after(NOT_BEFORE + timedelta(days=9)).sign(_edwards(), None)
    )


def pem(label: str, der: bytes) -> bytes:
    """A PEM block."""
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


def with_pair(data: bytes) -> bytes:
    """`data` with a good certificate and its key in the place of `CERTIFICATE_MARK` and `KEY_MARK`."""
    if CERTIFICATE_MARK not in data and KEY_MARK not in data:
        return data
    certificate, key = pem("CERTIFICATE", certificates()["one"]), pem(*private_keys()["one"])
    return data.replace(CERTIFICATE_MARK, base64.b64encode(certificate)).replace(KEY_MARK, base64.b64encode(key))
