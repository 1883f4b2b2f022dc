"""The slow reader refuses what is not a blob, whatever is wrong with it."""

from __future__ import annotations

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.decode import BlobError, Sections, decode, slow_match
from atsk8s.compile.encode import Blob, encode
from atsk8s.compile.layout import HEADER, NODE, Header
from atsk8s.model.ir import Backend, HostKey, PathMatchKind, Place, Rule, ServiceKey, VirtualHost

KEY = HostKey(place=Place.EXACT, host="a.example")
RULE = Rule(
    object=ObjectKey("shop", "web"),
    kind=PathMatchKind.PREFIX,
    path="/foo",
    path_as_written="/foo/",
    backends=(Backend(service=ServiceKey(namespace="shop", name="a", port=80)),),
)
BLOB = encode(VirtualHost(key=KEY, rules=(RULE,)))


def with_header(**fields: int) -> bytes:
    header = Header._make(HEADER.unpack_from(BLOB.data))._replace(**fields)
    return HEADER.pack(*header) + BLOB.data[HEADER.size :]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BLOB.data[:-8],
        BLOB.data + bytes(8),
        with_header(magic=1),
        with_header(version=1),
        with_header(header_size=72),
        with_header(n_nodes=0),
        with_header(n_nodes=0xFFFFFFFF),
        with_header(n_policies=1),
        with_header(nodes_off=4),
        with_header(nodes_off=0),
        with_header(strings_off=0xFFFFFFF8),
        with_header(strings_size=10_000),
        with_header(default_rule=1),
        with_header(n_services=0),
        with_header(n_routes=0),
    ],
)
def test_not_a_blob(data: bytes) -> None:
    with pytest.raises(BlobError):
        Sections(data)


@pytest.mark.parametrize("node", [(0, 1, 1, 1), (0, 0, 0, 1), (0, 0, 2, 1), (0, 0, 1, 2), (0, 0, 1, 0)])
def test_not_a_tree(node: tuple[int, int, int, int]) -> None:
    """A root with a name; children that are the root, out of place, too many, or without a parent."""
    root = (*node, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0)
    with pytest.raises(BlobError):
        Sections(BLOB.data[: HEADER.size] + NODE.pack(*root) + BLOB.data[HEADER.size + NODE.size :])


def test_arrays_belong_to_the_blob() -> None:
    with pytest.raises(BlobError):
        decode(Blob(data=BLOB.data, services=(), routes=BLOB.routes), KEY)


def test_slow_match() -> None:
    assert slow_match(BLOB.data, b"/foo/bar") == 0
    assert slow_match(BLOB.data, b"/") is None
    assert slow_match(BLOB.data, b"*") is None
