"""Texts of ConfigMaps are anybody's: whatever they hold, the answer is a value or a fault that is said, never something else."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from atsk8s.api.core import ConfigMap
from atsk8s.api.meta import ObjectKey, ObjectMeta
from atsk8s.cluster_settings.keys import KEYS
from atsk8s.cluster_settings.records import Record, RecordType, check_value
from atsk8s.cluster_settings.state import FAULTS_MAX, ClusterSettings
from atsk8s.errors import RejectError
from atsk8s.model.grants import Grant, is_granted, parse_domain_access_list
from atsk8s.settings import Settings

EXPRESSIONS = ("", "[0-4]", "^[0-9]+$", "^-?[0-9]+$", "^[^[:space:]]+$", r"^(\*|[[:digit:][:space:]]+)$", "^-1|[0-9]+$")
texts = st.text(max_size=40) | st.text("0123456789-xKMGT. ", max_size=25) | st.text("ab.*:,/ \n", max_size=40)
names = st.sampled_from([key.name for key in KEYS]) | st.text(max_size=30) | texts.map("proxy.config.".__add__)
labels = st.text("ab", min_size=1, max_size=2)
hosts = st.lists(labels, min_size=1, max_size=4).map(".".join)
domains = st.builds("{}{}".format, st.sampled_from(["", "*", "*."]), hosts) | st.just("*")


@given(st.dictionaries(names, texts, max_size=6))
def test_any_configmap(data: dict[str, str]) -> None:
    """A bounded number of conditions for each key; no message is long, or holds a line break."""
    state = ClusterSettings(Settings(pod_namespace="proxy"), None)
    meta = ObjectMeta(name="c", namespace="proxy", annotations={"ats-configmap": "true"})
    state.put(ObjectKey("proxy", "c"), ConfigMap(metadata=meta, data=data))
    state.apply()
    found = list(state.conditions())
    assert len(found) <= len(data) * FAULTS_MAX
    assert all(len(condition.message) < 1000 and condition.message.isprintable() for condition in found)
    state.put(ObjectKey("proxy", "c"), None)
    state.apply()
    assert list(state.conditions()) == []


@given(st.sampled_from(RecordType), st.sampled_from(EXPRESSIONS), texts)
def test_any_value_of_a_record(kind: RecordType, expression: str, text: str) -> None:
    """What is taken reads as itself: Traffic Server neither makes 0 of it nor drops its end."""
    record = Record(type=kind, is_dynamic=True, is_writable=True, expression=expression, value="0", source=1)
    with contextlib.suppress(RejectError):
        value = check_value("proxy.config.proxy_name", record, text)
        match kind:
            case RecordType.INT:
                assert str(int(value)) == value and -(1 << 63) <= int(value) < 1 << 63
            case RecordType.FLOAT:
                float(value)
            case RecordType.STRING:
                assert value == text.strip() and value.isascii() and (value == "" or value.isprintable())
        assert check_value("proxy.config.proxy_name", record, value) == value


def slow_matches(domain: str, host: str) -> bool:
    """The first ancestor's rule, label by label."""
    if domain == "*":
        return True
    if len(host) < 3:
        return False
    wanted, labels_of = domain.lstrip("*").lstrip(".").split("."), host.split(".")
    if not domain.startswith("*"):
        return wanted == labels_of
    return wanted == labels_of[1:] or (not domain.startswith("*.") and wanted == labels_of)


@given(st.lists(st.tuples(domains, st.lists(labels, min_size=1, max_size=3)), max_size=5), hosts, labels)
def test_grants(entries: list[tuple[str, list[str]]], host: str, namespace: str) -> None:
    """A list is parsed to what it says, and any entry may grant."""
    usable = [(domain, spaces) for domain, spaces in entries if domain == "*" or len(domain.lstrip("*").removeprefix(".")) >= 3]
    grants = parse_domain_access_list("\n".join(f"{domain}:{','.join(spaces)}" for domain, spaces in usable))
    assert grants == tuple(Grant(domain=domain, namespaces=tuple(dict.fromkeys(spaces))) for domain, spaces in usable)
    wanted = not usable or any(slow_matches(domain, host) and namespace in spaces for domain, spaces in usable)
    assert is_granted(grants, host, namespace) is wanted
