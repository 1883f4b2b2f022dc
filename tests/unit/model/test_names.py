"""Hosts and names."""

from __future__ import annotations

import pytest

from atsk8s.errors import Reason, RejectError
from atsk8s.model.ir import HostKey, Place
from atsk8s.model.names import NO_HOST, host_key, host_text, is_subdomain, shown, wildcard_over


@pytest.mark.parametrize(
    ("text", "place", "host"),
    [
        ("a.example", Place.EXACT, "a.example"),
        ("A.Example", Place.EXACT, "a.example"),
        ("*.a.example", Place.WILDCARD, "a.example"),
        ("localhost", Place.EXACT, "localhost"),
        ("1.2.3.4.example", Place.EXACT, "1.2.3.4.example"),
        ("xn--bcher-kva.example", Place.EXACT, "xn--bcher-kva.example"),
        ("a" * 63 + ".example", Place.EXACT, "a" * 63 + ".example"),
    ],
)
def test_hosts(text: str, place: Place, host: str) -> None:
    key = host_key(text, "host")

    assert key == HostKey(place=place, host=host)
    assert host_key(host_text(key), "host") == key


def test_absent_host() -> None:
    assert host_key("", "host") is NO_HOST


@pytest.mark.parametrize(
    "text",
    ["*", "*.", "**.a", "a.*", "*a.example", ".a", "a.", "a..b", "-a", "a-", "a_b", "a b", "a:80", "[::1]", "::1", "1.2.3.4", "ü.a",
     "a" * 64, ".".join(["a" * 50] * 6), "a\n", "a.example\n", "\0", "İ.example", "ſ.example", "\N{KELVIN SIGN}.example"],
)  # fmt: skip
def test_no_hosts(text: str) -> None:
    with pytest.raises(RejectError) as caught:
        host_key(text, "spec.rules[0].host")

    assert caught.value.reason is Reason.INVALID_HOST
    assert caught.value.message.startswith("spec.rules[0].host ")


def test_wildcard_over() -> None:
    assert wildcard_over(host_key("a.b.example", "")) == host_key("*.b.example", "")
    assert wildcard_over(host_key("example", "")) is None
    assert wildcard_over(host_key("*.b.example", "")) is None
    assert wildcard_over(NO_HOST) is None


def test_shown_is_one_short_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("\N{SNOWMAN}" * 10_000)) < 1000
    assert not is_subdomain("A")
