"""A `kubernetes.io/tls` Secret to a certificate: parsed once, here, and handed to C as DER.

No message says anything of a key but its kind and size, and none repeats bytes of the Secret.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from atsk8s.api.core import TLS_CERT, TLS_KEY, TLS_SECRET_TYPE, Secret
from atsk8s.api.meta import ObjectKey
from atsk8s.errors import Reason, RejectError
from atsk8s.model.ir import Certificate

CHAIN_BYTES_MAX: Final = 256 * 1024  # PEM; a public chain is 4 to 8 KiB
KEY_BYTES_MAX: Final = 32 * 1024  # PEM; RSA with 8192 bits is 6.4 KiB
CHAIN_CERTIFICATES_MAX: Final = 16
RSA_BITS: Final = range(2048, 8193)  # less is refused by OpenSSL at security level 2; more costs a handshake over 50 ms
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")  # those that TLS clients have

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def certificate(key: ObjectKey, secret: Secret) -> Certificate:
    """The Secret's certificate, chain and key, checked to belong together.

    An expired certificate is one as well: clients can be told to accept it, and the caller says that it is.

    Raises:
        RejectError: wrong type, missing or oversized entries, unreadable, encrypted or unsuitable key, or the key of another
            certificate.
    """
    if secret.type != TLS_SECRET_TYPE:
        raise RejectError(Reason.UNSUPPORTED, f"type is {secret.type[:80]!r}: only {TLS_SECRET_TYPE} holds a certificate")
    try:
        return _read(key, secret)
    except RejectError:
        raise
    except Exception as error:  # cryptography raises more than it documents (InvalidVersion, say); its messages quote what was read
        raise RejectError(
            Reason.INVALID_CERTIFICATE,
            f"data[{TLS_CERT}] or data[{TLS_KEY}] cannot be read ({type(error).__name__}): issue it anew",
        ) from None


def _read(key: ObjectKey, secret: Secret) -> Certificate:
    chain = _chain(_entry(secret, TLS_CERT, CHAIN_BYTES_MAX))
    private = _private_key(_entry(secret, TLS_KEY, KEY_BYTES_MAX))
    chain = _leaf_first(chain, private)
    leaf = chain[0]
    return Certificate(
        key=key,
        chain_der=b"".join(one.public_bytes(Encoding.DER) for one in chain),
        key_der=private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        names=_names(leaf),
        not_after_s=int(leaf.not_valid_after_utc.timestamp()),
    )


def _entry(secret: Secret, name: str, size_max: int) -> bytes:
    value = secret.data.get(name)
    if value is None or not len(value):
        raise RejectError(Reason.INVALID_CERTIFICATE, f"data[{name}] is missing: a TLS Secret has {TLS_CERT} and {TLS_KEY}")
    if len(value) > size_max:
        raise RejectError(Reason.TOO_LARGE, f"data[{name}] has {len(value)} bytes, at most {size_max} are taken")
    return value.reveal()


def _chain(pem: bytes) -> list[x509.Certificate]:
    if pem.count(b"-----BEGIN") > CHAIN_CERTIFICATES_MAX:
        raise RejectError(
            Reason.TOO_LARGE,
            f"data[{TLS_CERT}] has more than {CHAIN_CERTIFICATES_MAX} certificates: leave only the leaf's chain in it",
        )
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:  # its message quotes what was read
        raise RejectError(
            Reason.INVALID_CERTIFICATE,
            f"data[{TLS_CERT}] is not a chain of PEM certificates: put the leaf's first, then its issuers'",
        ) from None


def _private_key(pem: bytes) -> _PrivateKey:
    try:
        # Validating an RSA key takes 31 ms with the GIL held (222 ms at 4096 bits).  That it is the certificate's is checked below.
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise RejectError(Reason.INVALID_KEY, f"data[{TLS_KEY}] is encrypted: store the key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise RejectError(Reason.INVALID_KEY, f"data[{TLS_KEY}] is not a PEM private key that can be read") from None
    match key:
        case rsa.RSAPrivateKey():
            if key.key_size not in RSA_BITS:
                bounds = f"{RSA_BITS.start} to {RSA_BITS.stop - 1}"
                raise RejectError(Reason.INVALID_KEY, f"data[{TLS_KEY}] is RSA with {key.key_size} bits: use {bounds}")
            return key
        case ec.EllipticCurvePrivateKey():
            if key.curve.name not in _CURVES:
                raise RejectError(Reason.INVALID_KEY, f"data[{TLS_KEY}] is on curve {key.curve.name}: use P-256, P-384 or P-521")
            return key
        case ed25519.Ed25519PrivateKey():
            return key
    raise RejectError(Reason.INVALID_KEY, f"data[{TLS_KEY}] is of a kind that TLS servers do not use: use ECDSA or RSA")


def _leaf_first(chain: list[x509.Certificate], private: _PrivateKey) -> list[x509.Certificate]:
    """`chain` with the key's certificate moved to the front, where TLS wants it; people do get the order wrong."""
    wanted = private.public_key()
    for place, one in enumerate(chain):
        try:
            found = one.public_key()
        except (ValueError, UnsupportedAlgorithm):
            continue  # an issuer's key may be of a kind that we do not know
        if found == wanted:
            return [one, *chain[:place], *chain[place + 1 :]]
    raise RejectError(
        Reason.KEY_MISMATCH,
        f"data[{TLS_KEY}] is not the key of a certificate in data[{TLS_CERT}]: store the pair that belongs together",
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise RejectError(Reason.INVALID_CERTIFICATE, f"data[{TLS_CERT}]: the leaf's extensions cannot be read") from None
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
