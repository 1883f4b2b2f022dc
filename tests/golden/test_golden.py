"""Each folder here is a case: in.yaml (objects, and settings in a document of their own) gives out.yaml (routes and verdicts).

What out.yaml has is what `dump` shows of the model: virtual hosts, TLS, services, and the verdict of every object.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from atsk8s.api.core import Namespace, Secret, Service
from atsk8s.api.decode import convert
from atsk8s.api.discovery import EndpointSlice
from atsk8s.api.meta import KubeObject
from atsk8s.api.networking import Ingress, IngressClass
from atsk8s.compile.decode import decode
from atsk8s.compile.encode import encode
from atsk8s.label_selector import parse_label_selector
from atsk8s.model.state import Model
from atsk8s.settings import EndpointSlices, Settings, Tenancy

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/in.yaml"))
ITEMS: dict[str, type[KubeObject]] = {
    item.__name__: item for item in (Ingress, IngressClass, Service, EndpointSlice, Secret, Namespace)
}
NOW_S = 1_800_000_000


class KindOf(msgspec.Struct, frozen=True):
    name: str


def load(text: str) -> tuple[Settings, list[tuple[KindOf, KubeObject]]]:
    settings: dict[str, Any] = {}
    objects: list[tuple[KindOf, KubeObject]] = []
    for document in yaml.load_all(text, Loader=_Loader):
        if "settings" in document:
            settings = {name: tuple(v) if isinstance(v, list) else v for name, v in document["settings"].items()}
            continue
        kind = document.pop("kind")
        objects.append((KindOf(kind), convert(document, ITEMS[kind])))
    if "tenancy" in settings:
        settings["tenancy"] = Tenancy(settings["tenancy"])
    if "endpoint_slices" in settings:
        settings["endpoint_slices"] = EndpointSlices(settings["endpoint_slices"])
    if "namespace_selector" in settings:
        settings["namespace_selector"] = parse_label_selector(settings["namespace_selector"])
    return Settings(**settings), objects


class _Loader(yaml.SafeLoader):
    """Without YAML 1.1 timestamps: the API's are strings."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def drained(settings: Settings, objects: Iterable[tuple[KindOf, KubeObject]]) -> Model:
    model = Model(settings)
    for kind, obj in objects:
        model.put(kind, obj.key, obj)
    model.drain(now_s=NOW_S)
    return model


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_case(case: Path, pytestconfig: pytest.Config) -> None:
    model = drained(*load((case / "in.yaml").read_text()))
    dumped = yaml.safe_dump(model.dump(), sort_keys=False, width=120, allow_unicode=True)
    out = case / "out.yaml"
    if pytestconfig.getoption("--update"):
        out.write_text(dumped)
    expected = out.read_text() if out.exists() else ""
    assert dumped == expected, "".join(difflib.unified_diff(expected.splitlines(True), dumped.splitlines(True), "expected", "got"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_order_of_arrival_does_not_matter_and_blobs_decode(case: Path) -> None:
    settings, objects = load((case / "in.yaml").read_text())
    forward, backward = drained(settings, objects), drained(settings, reversed(objects))

    assert forward.state() == backward.state()
    assert forward.verdicts() == backward.verdicts()
    for key, vhost in forward.state().vhosts.items():
        assert vhost is not None
        assert decode(encode(vhost), key) == vhost
