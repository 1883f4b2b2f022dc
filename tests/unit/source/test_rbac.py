"""deploy/rbac grants what is asked of an API server: no right is missing, none is too many.

A source and a writer of Events run against an API server that lets them read, and what they ask for is compared with the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from atsk8s.config import parse_settings
from atsk8s.source.kinds import KINDS, AnyKind
from atsk8s.source.kube.events import REJECTIONS_LOOK_S, EventWriter
from atsk8s.source.kube.source import KubeSource
from atsk8s.source.kube.writing import Reply
from tests.harness.fakeapi import FakeApi, refuse
from tests.unit.source.live import source
from tests.unit.source.paper_events import Clock

RBAC = Path(__file__).resolve().parents[3] / "deploy" / "rbac"
OWN, WATCHED = "atsk8s", "team-a"  # the namespaces of the manifests
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<resource>[^/]+)(?P<name>/[^/]+)?"
)
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch"}


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """A verb on a resource."""

    namespace: str  # "": in all of them, or of the cluster
    group: str
    resource: str
    verb: str


def granted(file: str) -> list[Right]:
    """What the manifest gives the controller's ServiceAccount, through roles that are bound to it."""
    documents = list(yaml.safe_load_all((RBAC / file).read_text(encoding="utf-8")))
    bound = {
        (one["metadata"].get("namespace", ""), one["roleRef"]["kind"], one["roleRef"]["name"])
        for one in documents
        if one["kind"].endswith("Binding") and one["subjects"] == [{"kind": "ServiceAccount", "name": OWN, "namespace": OWN}]
    }
    roles = {
        (one["metadata"].get("namespace", ""), one["kind"], one["metadata"]["name"]): one for one in documents if "rules" in one
    }
    assert bound == roles.keys()
    return [
        Right(namespace, group, resource, verb)
        for (namespace, _, _), role in roles.items()
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def right(method: str, path: str, is_watch: bool, *, named: Iterable[str]) -> Right:
    """What a request needs (apiserver, pkg/endpoints/request); a namespace that no manifest names stands for any."""
    found = PATH.fullmatch(path)
    assert found is not None, path
    verb = VERBS[method] if method != "GET" or found["name"] else "watch" if is_watch else "list"
    namespace = found["namespace"] if found["namespace"] in named else ""
    return Right(namespace, found["group"] or "", found["resource"], verb)


class Recorder:
    """Takes what is written, has every Event already, and lets nobody find it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []

    def send(self, method: str, path: str, body: bytes = b"", *, content_type: str = "", accept: str = "") -> Reply:
        self.requests.append((method, path))
        match method:
            case "GET":
                return Reply(status=200, body=b'{"metadata": {"uid": "u"}}')
            case "POST":
                return Reply(status=409, body=b"{}")
            case _:
                return Reply(status=404, body=b"{}")

    def unauthorized(self) -> None: ...

    def close(self) -> None: ...


def written(it: KubeSource) -> list[tuple[str, str]]:
    """What a writer asks for that tells of every object that could not be decoded."""
    clock, recorder = Clock(), Recorder()
    writer = EventWriter(it, lambda: recorder, clock=clock, jitter=lambda low, _: low)
    until = clock.now_s + 4 * REJECTIONS_LOOK_S
    while clock.now_s < until:
        clock.now_s += writer.step()
    return recorder.requests


def asked(options: list[str], *, somewhere: str, refused: Sequence[AnyKind] = ()) -> set[Right]:
    """What is asked for with these options, in a cluster with one unusable object of each kind.

    Args:
        somewhere: a namespace that is watched.
        refused: kinds that may not be read.
    """
    settings = parse_settings([f"--pod-namespace={OWN}", *options], {})
    named = {OWN, *settings.watch_namespaces}
    places: dict[str, Any] = {"watch_namespaces": settings.watch_namespaces, "own_namespaces": settings.own_namespaces}
    readable = [kind for kind in KINDS if kind not in refused]
    with FakeApi(streams_lists=False) as api, source(api, **places) as it:
        paths = []
        for kind in readable:
            namespace = OWN if kind.is_own else somewhere if kind.namespaced else ""
            paths.append(kind.path(namespace if namespace in named else ""))
            metadata = {"name": "bad", "labels": 5, **({"namespace": namespace} if namespace else {})}
            api.put(paths[-1], {"metadata": metadata})
        for kind in refused:
            api.always(kind.path(), refuse(403, "Forbidden"))
        it.start()
        api.wait_for(lambda: all(it.store(kind).n_rejected for kind in readable))
        api.wait_for(lambda: all({one.is_watch for one in api.asked(path)} == {False, True} for path in paths))
        reads = [(one.method, one.path, one.is_watch) for path in paths for one in api.asked(path)]
        writes = [(*one, False) for one in written(it)]
    found = {right(*one, named=named) for one in (*reads, *writes)}
    return {one for one in found if not one.namespace or replace(one, namespace="") not in found}


def test_the_whole_cluster() -> None:
    rights = granted("cluster.yaml")
    assert sorted(rights) == sorted(asked([], somewhere="shop"))


def test_single_namespaces() -> None:
    """What has no namespace is not readable then."""
    rights = granted("namespaced.yaml")
    of_the_cluster = [kind for kind in KINDS if not kind.namespaced]
    assert sorted(rights) == sorted(asked([f"--watch-namespaces={WATCHED}"], somewhere=WATCHED, refused=of_the_cluster))
