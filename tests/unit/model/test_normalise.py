"""What the two normalisers promise, spelled out; that C does the same is a property test's."""

from __future__ import annotations

import pytest

from atsk8s.model.normalise import Host, RequestFault, normalise_host, normalise_path


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"", b"/"),
        (b"/", b"/"),
        (b"/a/b", b"/a/b"),
        (b"/a/b/", b"/a/b/"),
        (b"//a///b//", b"/a/b/"),
        (b"/%61%7E%2d", b"/a~-"),
        (b"/%2e%2E/a", RequestFault.BAD_PATH),
        (b"/a/%2e%2e/b", b"/b"),
        (b"/a/./b/.", b"/a/b/"),
        (b"/a/b/..", b"/a/"),
        (b"/a/..", b"/"),
        (b"/a//../b", b"/b"),
        (b"/a%2fb/../c", b"/c"),
        (b"/a%2f..", b"/a%2F.."),
        (b"/a%5c..%5cb", b"/a%5C..%5Cb"),
        (b"/...", b"/..."),
        (b"/%00", RequestFault.BAD_PATH),
        (b"/a\x00", RequestFault.BAD_PATH),
        (b"/a b", RequestFault.BAD_PATH),
        (b"/%", RequestFault.BAD_PATH),
        (b"/%4", RequestFault.BAD_PATH),
        (b"/%g1", RequestFault.BAD_PATH),
        (b"*", RequestFault.BAD_PATH),
        (b"/" + b"a" * 8192, RequestFault.LONG_PATH),
    ],
)
def test_paths(path: bytes, normal: bytes | RequestFault) -> None:
    assert normalise_path(path) == normal


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"a.example", Host(b"a.example", 0)),
        (b"A.Example.:8080", Host(b"a.example", 8080)),
        (b"a:", Host(b"a", 0)),
        (b"[2001:DB8::1]:443", Host(b"[2001:db8::1]", 443)),
        (b"1.2.3.4", Host(b"1.2.3.4", 0)),
        (b"a_b", Host(b"a_b", 0)),
        (b"", RequestFault.BAD_HOST),
        (b".", RequestFault.BAD_HOST),
        (b"a..b", RequestFault.BAD_HOST),
        (b"a:65536", RequestFault.BAD_HOST),
        (b"a:b", RequestFault.BAD_HOST),
        (b"u@a", RequestFault.BAD_HOST),
        (b"[::1", RequestFault.BAD_HOST),
        (b"[::1]x", RequestFault.BAD_HOST),
        (b"[fe80::1%25eth0]", RequestFault.BAD_HOST),
        (b"a" * 64, RequestFault.BAD_HOST),
        (b"a\x00", RequestFault.BAD_HOST),
    ],
)
def test_hosts(authority: bytes, host: Host | RequestFault) -> None:
    assert normalise_host(authority) == host
