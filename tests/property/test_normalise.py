"""The host and the path of a request: Python's slow normaliser and C's give the same, and what they give is a fixed point."""

from __future__ import annotations

from hypothesis import example, given

from atsk8s.model.normalise import Host, RequestFault, normalise_host, normalise_path
from tests.property.creader import CReader
from tests.property.strategies import requests


@given(path=requests.raw_paths)
@example(path=b"")
@example(path=b"/a//../b")
@example(path=b"/" + b"a" * 8191)
@example(path=b"/" + b"a" * 8192)
def test_c_normalises_paths_as_python_does(c_reader: CReader, path: bytes) -> None:
    assert c_reader.normalise_path(path) == normalise_path(path)


@given(path=requests.raw_paths)
def test_a_normal_path_stays(path: bytes) -> None:
    normal = normalise_path(path)

    if not isinstance(normal, RequestFault):
        assert normalise_path(normal) == normal
        assert b"//" not in normal
        assert not {b".", b".."} & set(normal.split(b"/"))


@given(authority=requests.raw_authorities)
@example(authority=b"a" * 63 + b"." + b"b" * 63 + b"." + b"c" * 63 + b"." + b"d" * 61 + b".:65535")
@example(authority=b"a" * 63 + b"." + b"b" * 63 + b"." + b"c" * 63 + b"." + b"d" * 62)
@example(authority=b"[" + b"1:" * 22 + b"1]:1")
@example(authority=b"[" + b"1:" * 23 + b"]")
@example(authority=b"a.:")
def test_c_normalises_hosts_as_python_does(c_reader: CReader, authority: bytes) -> None:
    assert c_reader.normalise_host(authority) == normalise_host(authority)


@given(authority=requests.raw_authorities)
def test_a_normal_host_stays(authority: bytes) -> None:
    host = normalise_host(authority)

    if not isinstance(host, RequestFault):
        assert normalise_host(host.name) == Host(host.name, 0)
