"""A TLS Secret's two files, through the model to OpenSSL in the C core.

The input is lines, each a PEM block of a file, whose DER (made_pairs.py) may have been changed:

    crt one 12=ff 40+0000 7-2    tls.crt: certificate `one`; byte 12 is 0xff, two bytes are put in at 40, two from 7 on are left out
    key one                      tls.key
    crt: any text                tls.crt: this text

So no input has a key in it, and an input means the same in each run but for the random bytes of keys and signatures.  A pair is
served, or it has a verdict that shows nothing of the key; what is beside it is served all the same.
"""

from __future__ import annotations

import random
import re
from typing import Any

import atsk8s.model.certificates  # the model imports it when it needs it, which is too late to be looked into  # noqa: F401
from atsk8s.api.core import TLS_CERT, TLS_KEY, TLS_SECRET_TYPE, Secret, SecretBytes
from atsk8s.api.decode import convert
from atsk8s.api.meta import ObjectKey, ObjectMeta
from atsk8s.api.networking import Ingress
from atsk8s.settings import Settings
from atsk8s.source.kinds import INGRESS, KINDS, SECRET, AnyKind
from atsk8s.source.store import Store
from tests.fuzz.commits import Cluster, kept_objects
from tests.fuzz.made_pairs import certificates, pem, private_keys
from tests.fuzz.target import MutateBytes, Target, no_errors_logged

_NAME = ObjectKey("ns", "pair")
_EDIT = re.compile(r"(\d{1,5})(?:([=+])([0-9a-f]{2,64})|-(\d{1,4}))")
_EDITS_MAX = 64
_SHOWN_CHARS_MAX = 16  # of a line of a key that may stand in a message by chance: "PRIVATE KEY"


def _ingress() -> Ingress:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    spec = {
        "ingressClassName": "atsk8s",
        "rules": [{"host": "pair.test", "http": {"paths": paths}}],
        "tls": [{"hosts": ["pair.test"], "secretName": _NAME.name}],
    }
    return convert({"metadata": {"name": "tls", "namespace": _NAME.namespace}, "spec": spec}, Ingress)


def _files(data: bytes) -> tuple[bytes, bytes]:
    files = {"crt": b"", "key": b""}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        if line[:4] in ("crt:", "key:"):
            files[line[:3]] += line[4:].encode("utf-8", "surrogateescape") + b"\n"
            continue
        match line.split(" "):
            case ["crt", name, *edits] if name in certificates():
                files["crt"] += pem("CERTIFICATE", _edited(certificates()[name], edits))
            case ["key", name, *edits] if name in private_keys():
                label, der = private_keys()[name]
                files["key"] += pem(label, _edited(der, edits))
    return files["crt"], files["key"]


def _edited(der: bytes, edits: list[str]) -> bytes:
    for edit in edits[:_EDITS_MAX]:
        found = _EDIT.fullmatch(edit)
        if found is None:
            continue
        at = int(found[1]) % len(der) if der else 0
        fresh = bytes.fromhex(found[3][: len(found[3]) // 2 * 2]) if found[3] else b""
        match found[2]:
            case "=":
                der = der[:at] + fresh + der[at + len(fresh) :]
            case "+":
                der = der[:at] + fresh + der[at:]
            case _:
                der = der[:at] + der[at + int(found[4]) :]
    return der


def check(data: bytes) -> None:
    """A pair is taken, or refused by the model or by OpenSSL with a verdict."""
    chain, key = _files(data)
    secret = Secret(
        metadata=ObjectMeta(name=_NAME.name, namespace=_NAME.namespace),
        type=TLS_SECRET_TYPE,
        data={TLS_CERT: SecretBytes(chain), TLS_KEY: SecretBytes(key)},
    )
    cluster = Cluster(Settings(), is_kept=True)
    stores: dict[AnyKind, Store[Any]] = {kind: Store(kind) for kind in KINDS}
    for kind, name, obj in (*kept_objects(), (INGRESS, ObjectKey("ns", "tls"), _ingress()), (SECRET, _NAME, secret)):
        stores[kind].put(name, obj)
        cluster.put(kind, name, obj)
    with no_errors_logged():
        cluster.commit()
    cluster.finish(stores)
    state = cluster.model.state()
    assert (_NAME in state.certificates) != (_NAME in state.empty_certificates)
    shown = str([*cluster.model.conditions(), cluster.model.dump()])
    for line in key.split():
        assert len(line) <= _SHOWN_CHARS_MAX or line.decode("latin-1") not in shown, "a verdict shows a part of the key"


def mutate(data: bytes, rng: random.Random, mutate_bytes: MutateBytes) -> bytes:
    """Lines are exchanged and repeated, and get edits; most keep the length, so that the lengths around them stay true."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(10):
        case 0:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        case 1 if len(lines) > 1:
            del lines[at]
        case 2:
            rng.shuffle(lines)
        case 3:
            lines[at] = mutate_bytes(lines[at], len(lines[at]) + 16).replace(b"\n", b"")
        case 4:
            lines.append(f"crt {rng.choice(list(certificates()))}".encode())
            lines.append(f"key {rng.choice(list(private_keys()))}".encode())
        case _:
            value = rng.choice(("00", "01", "30", "7f", "80", "ff", f"{rng.randrange(256):02x}"))
            place = rng.randrange(rng.choice((64, 400, 1300)))
            lines[at] += rng.choice((f" {place}={value}",) * 4 + (f" {place}+{value}", f" {place}-1")).encode()
    return b"\n".join(lines)


WORDS = (
    *(f"crt {name}" for name in certificates()),
    *(f"key {name}" for name in private_keys()),
    "crt:-----BEGIN CERTIFICATE-----",
)
TARGET = Target(check=check, words=WORDS, mutate=mutate, size_max=2048)
