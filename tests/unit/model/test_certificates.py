"""A TLS Secret to a certificate, and every way in which it can be bad; keys never show."""

from __future__ import annotations

import traceback
from itertools import permutations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from atsk8s.api.core import Secret, SecretBytes
from atsk8s.api.meta import ObjectKey, ObjectMeta
from atsk8s.errors import Reason, RejectError
from atsk8s.model.certificates import CHAIN_CERTIFICATES_MAX, certificate
from tests.property.pairs import NOT_BEFORE, certificate_of, key_pem, keys, pem

KEY = ObjectKey("shop", "tls")


def secret(crt: bytes | None, key: bytes | None, secret_type: str = "kubernetes.io/tls") -> Secret:
    data = {"tls.crt": crt, "tls.key": key}
    return Secret(
        metadata=ObjectMeta(name=KEY.name, namespace=KEY.namespace),
        type=secret_type,
        data={name: SecretBytes(value) for name, value in data.items() if value is not None},
    )


@pytest.mark.parametrize("which", [0, 1, 2])
def test_good_pair(which: int) -> None:
    key = keys()[which]
    leaf = certificate_of(key, "A.example")
    found = certificate(KEY, secret(pem(leaf), key_pem(key)))

    assert found.names == ("a.example", "*.a.example")
    assert found.not_after_s == int(NOT_BEFORE.timestamp()) + 365 * 86400
    assert x509.load_der_x509_certificate(found.chain_der) == leaf
    assert load_der_private_key(found.key_der, None).public_key() == key.public_key()


def test_leaf_is_moved_to_the_front() -> None:
    leaf_key, ca_key, _ = keys()
    ca = certificate_of(ca_key, "ca.example")
    leaf = certificate_of(leaf_key, "a.example", issuer=(ca_key, "ca.example"))
    in_order = certificate(KEY, secret(pem(leaf) + pem(ca), key_pem(leaf_key)))
    swapped = certificate(KEY, secret(b"comment\n" + pem(ca) + pem(leaf), key_pem(leaf_key)))

    assert swapped == in_order


def test_expired_is_a_certificate() -> None:
    key = keys()[0]

    assert certificate(KEY, secret(pem(certificate_of(key, "a.example", days=1)), key_pem(key))).not_after_s > 0


GOOD = object()
BROKEN_CRT = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
BROKEN_KEY = b"-----BEGIN " + b"PRIVATE KEY-----\nhunter2A\n-----END PRIVATE KEY-----\n"
FAULTS = [
    ("no certificate", None, GOOD, Reason.INVALID_CERTIFICATE, "data[tls.crt] is missing"),
    ("no key", GOOD, None, Reason.INVALID_CERTIFICATE, "data[tls.key] is missing"),
    ("empty key", GOOD, b"", Reason.INVALID_CERTIFICATE, "data[tls.key] is missing"),
    ("garbage certificate", b"garbage", GOOD, Reason.INVALID_CERTIFICATE, "not a chain"),
    ("broken PEM", BROKEN_CRT, GOOD, Reason.INVALID_CERTIFICATE, "not a chain"),
    ("garbage key", GOOD, b"hunter2 garbage", Reason.INVALID_KEY, "not a PEM private key"),
    ("broken key", GOOD, BROKEN_KEY, Reason.INVALID_KEY, "not a PEM private key"),
    ("large certificate", b"x" * 300_000, GOOD, Reason.TOO_LARGE, "300000 bytes"),
    ("large key", GOOD, b"x" * 100_000, Reason.TOO_LARGE, "100000 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("crt", "key", "reason", "says"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_faults(crt: object, key: object, reason: Reason, says: str) -> None:
    good = keys()[0]
    crt_pem = pem(certificate_of(good, "a.example")) if crt is GOOD else crt
    private = key_pem(good) if key is GOOD else key
    assert crt_pem is None or isinstance(crt_pem, bytes)
    assert private is None or isinstance(private, bytes)
    with pytest.raises(RejectError) as caught:
        certificate(KEY, secret(crt_pem, private))

    assert caught.value.reason is reason
    assert says in caught.value.message
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("of_certificate", "of_secret"), list(permutations(range(4), 2)))
def test_mismatched_key(of_certificate: int, of_secret: int) -> None:
    known = (*keys(), ec.generate_private_key(ec.SECP256R1()))  # of one kind and size, of one kind, of two kinds
    one, other = known[of_certificate], known[of_secret]
    with pytest.raises(RejectError) as caught:
        certificate(KEY, secret(pem(certificate_of(one, "a.example")), key_pem(other)))

    assert caught.value.reason is Reason.KEY_MISMATCH


def test_encrypted_key() -> None:
    key = keys()[0]
    with pytest.raises(RejectError) as caught:
        certificate(KEY, secret(pem(certificate_of(key, "a.example")), key_pem(key, b"passphrase")))

    assert caught.value.reason is Reason.INVALID_KEY
    assert "encrypted" in caught.value.message


def test_short_rsa() -> None:
    assert "1024 bits" in _refused(key_pem(rsa.generate_private_key(65537, 1024)))


def test_odd_curve() -> None:
    assert "secp256k1" in _refused(key_pem(ec.generate_private_key(ec.SECP256K1())))


def test_key_of_another_kind() -> None:
    made = ed448.Ed448PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert "of a kind" in _refused(made)


def _refused(private: bytes) -> str:
    with pytest.raises(RejectError) as caught:
        certificate(KEY, secret(pem(certificate_of(keys()[0], "a.example")), private))

    assert caught.value.reason is Reason.INVALID_KEY
    return caught.value.message


def test_too_many_certificates() -> None:
    key = keys()[0]
    with pytest.raises(RejectError) as caught:
        certificate(KEY, secret(pem(certificate_of(key, "a.example")) * (CHAIN_CERTIFICATES_MAX + 1), key_pem(key)))

    assert caught.value.reason is Reason.TOO_LARGE


def test_wrong_type() -> None:
    key = keys()[0]
    with pytest.raises(RejectError) as caught:
        certificate(KEY, secret(pem(certificate_of(key, "a.example")), key_pem(key), "Opaque"))

    assert caught.value.reason is Reason.UNSUPPORTED


def test_key_is_not_shown() -> None:
    key = keys()[0]
    found = certificate(KEY, secret(pem(certificate_of(key, "a.example")), key_pem(key)))

    assert "key_der" not in repr(found)
    assert repr(found.key_der)[2:-1] not in repr(found)
