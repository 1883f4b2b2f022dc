"""The last good state as the offline tools read it: a whole file, and every way in which one can be none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atsk8s.api.meta import ObjectKey
from atsk8s.compile import state_file
from atsk8s.compile.encode import encode, encode_endpoints
from atsk8s.compile.faults import BlobError
from atsk8s.compile.layout import BLOB_VERSION, NONE
from atsk8s.compile.state_file import MAGIC, VERSION, read_state, siphash_1_3
from atsk8s.model.explain import dump, explain
from atsk8s.model.ir import Backend, Endpoint, EndpointFlags, HostKey, PathMatchKind, Place, Rule, Service, ServiceKey, VirtualHost

HOST = HostKey(place=Place.EXACT, host="shop.example")
SVC = ServiceKey(namespace="ns", name="cart", port=80)
VHOST = VirtualHost(
    key=HOST,
    rules=(
        Rule(
            object=ObjectKey("ns", "shop"),
            kind=PathMatchKind.PREFIX,
            path="/cart",
            path_as_written="/cart",
            backends=(Backend(service=SVC),),
        ),
    ),
)
ENDPOINTS = (Endpoint(addr=bytes([10, 0, 0, 1]), port=8080, flags=EndpointFlags.READY),)


def filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def record(kind: int, *parts: bytes) -> bytes:
    body = b"".join(map(filled, parts))
    return struct.pack("<II", kind, len(body)) + body


def whole(*records: bytes, n_records: int | None = None, version: int = VERSION) -> bytes:
    """A file, as state_save.c writes it."""
    fixed = struct.pack("<4IQ14I", 0, 1, 8, 0, 0, *([0] * 14))
    body = fixed + struct.pack("<16sBB6x", bytes(16), 4, 8) + filled(b"/healthz") + b"".join(records)
    n = len(records) if n_records is None else n_records
    rest = struct.pack("<IIQQ32s", BLOB_VERSION, n, 1_800_000_000, 7, bytes(32)) + body
    head = struct.pack("<IHHQ", MAGIC, version, 80, 24 + len(rest))
    return head + struct.pack("<Q", siphash_1_3(rest, MAGIC, VERSION)) + rest


def good() -> list[bytes]:
    blob = encode(VHOST)
    host = HOST.host.encode()
    fixed = struct.pack("<HBBIII", 0, Place.EXACT, len(host), len(blob.data), len(blob.services), len(blob.routes))
    return [
        record(1, struct.pack("<QII", 5, NONE, 0), encode_endpoints(Service(key=SVC, endpoints=ENDPOINTS))),
        record(2, struct.pack("<QHHI", 6, 443, 11, 3), b"pod.example"),
        record(3, struct.pack("<QII", 9, 3, 4), b"abc", b"keys"),
        record(4, fixed, host, struct.pack("<Q", 5), struct.pack(f"<{len(blob.routes)}Q", *range(len(blob.routes))), blob.data),
        record(5, struct.pack("<HBBI", 0, Place.WILDCARD, 7, 1), b"example", struct.pack("<Q", 9)),
    ]


def test_a_file_is_read_and_explained() -> None:
    saved = read_state(whole(*good()))
    assert (saved.written_s, saved.table_version) == (1_800_000_000, 7)
    said = explain(saved.table, "shop.example", "/cart/1", lambda _: ())
    assert said["matched"] == "PREFIX /cart"
    assert "10.0.0.1:8080" in str(said["services"])
    assert [service.max_failures for service in saved.table.services.values() if service is not None] == [None, 3]
    shown = str(dump(saved.table, {}))
    assert "pod.example:443" in shown
    assert "keys" not in shown


def test_the_checksum_is_siphash_1_3() -> None:
    """Against CPython's own, which is that with its hash secret; a fixed value of the C code."""
    assert siphash_1_3(b"", 0, 0) == siphash_1_3(b"", 0, 0)
    assert len({siphash_1_3(bytes(n), 1, 2) for n in range(20)}) == 20


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "cut short"),
        (bytes(80), "begin"),
        (whole(*good(), version=2), "format 2"),
        (whole(*good())[:-8], "size"),
        (whole(*good(), n_records=4), "behind its end"),
        (whole(*good(), n_records=6), "cut short"),
        (whole(record(99)), "unknown kind 99"),
        (whole(*good()[3:]), "a service that is not there"),
        (whole(good()[4]), "a certificate that is not there"),
        (whole(record(1, struct.pack("<QII", 5, 0, 0), b"12345678")), "endpoints cut short"),
        (whole(record(2, struct.pack("<QHHI", 6, 443, 3, 0), b"a\nb")), "a name"),
        (whole(good()[0], record(4, struct.pack("<HBBIII", 0, 9, 0, 0, 0, 0))), "a host"),
        (whole(good()[0], record(4, struct.pack("<HBBIII", 0, 0, 0, 0xFFFFFFF8, 0xFFFFFFFF, 0))), "cut short"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(data: bytes, fault: str) -> None:
    with pytest.raises(BlobError, match=fault):
        read_state(data)


def test_a_damaged_one_has_a_wrong_checksum() -> None:
    data = bytearray(whole(*good()))
    data[-1] ^= 1
    with pytest.raises(BlobError, match="checksum"):
        read_state(bytes(data))


@settings(max_examples=300)
@given(at=st.integers(24, len(whole(*good())) - 1), to=st.binary(min_size=1, max_size=8))
def test_no_bytes_are_anything_but_a_state_or_refused(at: int, to: bytes) -> None:
    """With a right checksum, as somebody would make it who means harm."""
    data = bytearray(whole(*good()))
    data[at : at + len(to)] = to[: len(data) - at]
    data[16:24] = struct.pack("<Q", siphash_1_3(bytes(data[24:]), MAGIC, VERSION))
    try:
        saved = read_state(bytes(data))
    except BlobError:
        return
    dump(saved.table, {})
    explain(saved.table, "shop.example", "/cart", lambda _: ())


def test_the_layout_is_that_of_c() -> None:
    """Sizes as plugin_c/controller/state_format.h asserts them."""
    sizes = {"HEADER": 80, "SETTINGS": 80, "NETWORK": 24, "RECORD": 8, "SERVICE": 16, "NAME": 16, "CERTIFICATE": 16}
    sizes |= {"VHOST": 16, "POLICY": 8}
    for name, size in sizes.items():
        assert getattr(state_file, f"STATE_{name}").size == size, name
