"""The table of keys, and what the ones that are not records take."""

from __future__ import annotations

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.cluster_settings.keys import KEYS, VALUE_CHARS_MAX, KeyState, key_of, keys_table, parse_value, records_table
from atsk8s.errors import Reason, RejectError
from atsk8s.model.grants import AccessList, Grant
from atsk8s.model.host_certificates import HostCertificate, parse_tls_certificates, policy_for
from atsk8s.model.names import NO_HOST, host_key


def test_every_key_of_the_first_ancestor_is_known() -> None:
    names = {
        "hsts-max-age",
        "hsts-include-subdomains",
        "http2-enable",
        "tls-minimum-version",
        "tls-certificates",
        "healthcheck-path",
        "domain-access-list",
    }
    assert names == {key.name for key in KEYS} - {"proxy.config.*"}
    assert key_of("proxy.config.anything").name == "proxy.config.*"


@pytest.mark.parametrize("name", ["", "hsts-max-ages", "proxy.process.x", "Proxy.config.x", "proxy.config"])
def test_unknown_keys(name: str) -> None:
    with pytest.raises(RejectError) as raised:
        key_of(name)
    assert raised.value.reason is Reason.UNKNOWN_SETTING
    assert "tls-certificates" in raised.value.message


def test_a_key_without_effect_says_what_to_do() -> None:
    assert all(key.remedy for key in KEYS if key.state is not KeyState.LIVE)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("domain-access-list", "a.example:ns", AccessList(grants=(Grant(domain="a.example", namespaces=("ns",)),))),
        ("tls-certificates", "*.a.example:ns/s", (HostCertificate(domain="*.a.example", secret=ObjectKey("ns", "s")),)),
        ("healthcheck-path", "/healthz\n", "/healthz"),
        ("hsts-max-age", "31536000", 31536000),
        ("hsts-include-subdomains", "true", True),
        ("http2-enable", "false", False),
        ("tls-minimum-version", "1.2", "1.2"),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    assert parse_value(key_of(name), text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tls-certificates", "a.example:s"),
        ("healthcheck-path", "healthz"),
        ("healthcheck-path", "/health?z"),
        ("healthcheck-path", "/" + "x" * 255),
        ("hsts-max-age", "-1"),
        ("hsts-include-subdomains", "maybe"),
        ("tls-minimum-version", "1.4"),
        ("tls-minimum-version", "1" * (VALUE_CHARS_MAX + 1)),
    ],
)
def test_bad_values(name: str, text: str) -> None:
    with pytest.raises(RejectError) as raised:
        parse_value(key_of(name), text)
    assert raised.value.reason is Reason.INVALID_SETTING
    assert len(raised.value.message) < 600


def test_certificates_of_the_document_and_of_the_code() -> None:
    """Commas between domains, as the ancestor's document has it, and between entries, as its code read them."""
    one, two = ObjectKey("ns", "one"), ObjectKey("ns", "two")
    found = parse_tls_certificates("a.example,*b.example:ns/one,c.example:ns/two\n *:ns/two")
    assert [(entry.domain, entry.secret) for entry in found] == [
        ("a.example", one),
        ("*b.example", one),
        ("c.example", two),
        ("*", two),
    ]
    for host, secret in (("www.b.example", one), ("*.b.example", one), ("elsewhere.example", two)):
        policy = policy_for(host_key(host, ""), found)
        assert policy is not None and policy.certificates == (secret,)
    assert policy_for(host_key("elsewhere.example", ""), found[:3]) is None
    assert policy_for(NO_HOST, found) is None
    assert parse_tls_certificates(" ") == ()


@pytest.mark.parametrize(
    "text", ["a.example", "a.example:s", "a.example:ns/", "a.example:/s", "a.example:ns/s/t", ":ns/s", "a.example:ns/s,b"]
)
def test_bad_certificates(text: str) -> None:
    with pytest.raises(ValueError, match="entry"):
        parse_tls_certificates(text)


def test_tables_are_tables() -> None:
    assert keys_table().count("\n") == len(KEYS) + 2
    assert "`proxy.config.plugin.*`" in records_table()
