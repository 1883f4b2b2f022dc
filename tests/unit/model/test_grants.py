"""`domain-access-list`: its grammar, and who may use which host, as the first ancestor had it."""

from __future__ import annotations

import pytest

from atsk8s.model.grants import ENTRIES_MAX, NAMESPACES_MAX, Grant, domain_matches, is_granted, parse_domain_access_list

HOSTS = ("app.example", "www.app.example", "a.www.app.example", "xapp.example", "example", "*.app.example", "")


@pytest.mark.parametrize(
    ("domain", "matched"),
    [
        ("*", HOSTS),
        ("app.example", ("app.example",)),
        ("www.app.example", ("www.app.example",)),
        ("*.app.example", ("www.app.example", "*.app.example")),
        ("*app.example", ("app.example", "www.app.example", "*.app.example")),
        ("*.example", ("app.example", "xapp.example")),
        ("*example", ("app.example", "xapp.example", "example")),
    ],
)
def test_what_a_domain_stands_for(domain: str, matched: tuple[str, ...]) -> None:
    """Exactly one label for the star; "*app.example" is not "anything that ends so"."""
    assert tuple(host for host in HOSTS if domain_matches(domain, host)) == matched


def test_short_hosts_are_matched_by_the_star_alone() -> None:
    assert not domain_matches("*.ab", "ab")
    assert not domain_matches("ab", "ab")
    assert domain_matches("*", "ab")


def test_the_ancestors_example() -> None:
    grants = parse_domain_access_list("*fooapp.com:fooapp-prod,fooapp-staging baz.bar.com:baz-microsite")
    assert grants == (
        Grant(domain="*fooapp.com", namespaces=("fooapp-prod", "fooapp-staging")),
        Grant(domain="baz.bar.com", namespaces=("baz-microsite",)),
    )
    assert is_granted(grants, "www.fooapp.com", "fooapp-staging")
    assert is_granted(grants, "fooapp.com", "fooapp-prod")
    assert not is_granted(grants, "fooapp.com", "baz-microsite")
    assert not is_granted(grants, "a.www.fooapp.com", "fooapp-prod")
    assert not is_granted(grants, "elsewhere.com", "fooapp-prod")  # what no entry names is denied


def test_a_later_entry_may_still_grant() -> None:
    grants = parse_domain_access_list("www.app.example:a  *.app.example:b\n*:ops,c other.example:*")
    for namespace in ("a", "b", "ops", "c"):
        assert is_granted(grants, "www.app.example", namespace)
    assert not is_granted(grants, "www.app.example", "d")
    assert is_granted(grants, "other.example", "d")
    assert is_granted(grants, "", "ops")
    assert not is_granted(grants, "", "d")


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_an_empty_list_grants_everything(text: str) -> None:
    grants = parse_domain_access_list(text)
    assert grants == ()
    assert is_granted(grants, "any.example", "any")


def test_case_and_duplicates() -> None:
    assert parse_domain_access_list("WWW.App.Example:a,b,a") == (Grant(domain="www.app.example", namespaces=("a", "b")),)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("app.example", "has no ':'"),
        ("app.example: a", "'' is no namespace"),
        ("app.example:a,", "'' is no namespace"),
        ("app.example:A", "'A' is no namespace"),
        ("app.example:a.b", "'a.b' is no namespace"),
        ("app.example:a:b", "'a:b' is no namespace"),
        ("a*.example:a", "is no domain"),
        ("**.example:a", "is no domain"),
        ("*.*.example:a", "is no domain"),
        ("*.:a", "is no domain"),
        (":a", "is no domain"),
        ("ab:a", "is no domain"),
        ("b\u212a.example:a", "is no domain"),
        ("good.example:a bad_.example:a", "'bad_.example:a'"),
        ("a.example:" + ",".join(f"n{i}" for i in range(NAMESPACES_MAX + 1)), f"{NAMESPACES_MAX + 1} namespaces"),
        ("a.example:a " * (ENTRIES_MAX + 1), f"{ENTRIES_MAX + 1} entries"),
    ],
)
def test_faults(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=r"has|no") as raised:
        parse_domain_access_list(text)
    assert fault in str(raised.value)
    assert len(str(raised.value)) < 400
