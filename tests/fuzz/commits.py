"""From objects to the C core's table, and what must hold of it whatever the objects say.

Beside the objects under test there are always some that are right (`KEPT`): they are served, whatever stands beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from atsk8s.api.decode import convert
from atsk8s.api.meta import ObjectKey
from atsk8s.compile.decode import decode
from atsk8s.compile.encode import encode
from atsk8s.model.changes import Changes
from atsk8s.model.ir import HostKey, Place, ServiceKey
from atsk8s.model.normalise import RequestFault, normalise_path
from atsk8s.model.state import Model
from atsk8s.settings import Settings
from atsk8s.source.kinds import KINDS, AnyKind
from atsk8s.source.store import Store
from tests.fuzz.target import check_message

if TYPE_CHECKING:
    from atsk8s.bridge.publish import CommitWriter

NOW_S = 1_800_000_000
KEPT_NAME = "kept-apart"
KEPT_HOST = HostKey(place=Place.EXACT, host=f"h.{KEPT_NAME}")
_KEPT_SERVICE = ServiceKey(namespace=KEPT_NAME, name=KEPT_NAME, port=80)
_META = {"name": KEPT_NAME, "namespace": KEPT_NAME, "resourceVersion": "1", "creationTimestamp": "1970-01-01T00:00:01Z"}
_BACKEND = {"service": {"name": KEPT_NAME, "port": {"number": 80}}}
KEPT: tuple[dict[str, Any], ...] = (
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _META,
        "spec": {
            "ingressClassName": "atsk8s",
            "rules": [{"host": KEPT_HOST.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": _BACKEND}]}}],
        },
    },
    {"apiVersion": "v1", "kind": "Service", "metadata": _META, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}},
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**_META, "labels": {"kubernetes.io/service-name": KEPT_NAME}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.9"]}],
        "ports": [{"port": 8080}],
    },
)
KEPT_MANIFEST = "---\n".join(json.dumps(item) + "\n" for item in KEPT)


def kept_objects() -> Iterable[tuple[AnyKind, ObjectKey, Any]]:
    """Kind, key and object of everything in `KEPT`."""
    for kind in KINDS:
        for item in KEPT:
            if item["kind"] == kind.name:
                obj = convert(item, kind.item)
                yield kind, obj.key, obj


def check_state(model: Model) -> None:
    """What holds of any drained model: verdicts are bounded lines, and each virtual host survives its way into bytes."""
    for condition in model.conditions():
        check_message(condition.message)
    for key, vhost in model.state().vhosts.items():
        assert vhost is not None
        decoded = decode(encode(vhost), key)
        assert decoded == vhost
        assert key.host == key.host.lower()
        for rule in vhost.rules:
            normal = normalise_path(rule.path.encode())
            assert not isinstance(normal, RequestFault), f"a rule that no request can match: {rule.path!r}"
            assert normal == rule.path.encode()
    json.dumps(model.dump())  # what the admin listener does with it


class Cluster:
    """A model over stores, and the C core behind it, which accepts every commit but for weak certificates, or this is a defect.

    Args:
        is_kept: the objects of `KEPT` are among what is put, and nothing else names them.
    """

    def __init__(self, settings: Settings, *, is_kept: bool) -> None:
        # Imported here: the core is built, and found, only where something is committed.
        from atsk8s.bridge.publish import CommitWriter

        self._settings = settings
        self._is_kept = is_kept
        self.model = Model(settings)
        self._writer: CommitWriter = CommitWriter()  # its first commit takes over: the table starts anew

    def put(self, kind: AnyKind, key: ObjectKey, obj: Any) -> None:
        """See `Model.put`."""
        self.model.put(kind, key, obj)

    def commit(self) -> None:
        """Publish what has changed; check it."""
        model = self.model
        self._writer.commit(model.drain(now_s=NOW_S))
        refused = [condition for condition in self._writer.refusals() if condition.object.kind != "Secret"]
        assert not refused, f"refused by the core: {refused}"
        check_state(model)

    def finish(self, stores: Mapping[AnyKind, Store[Any]]) -> None:
        """Check the end: what came step by step is what comes at once, and what is right is served."""
        state = self.model.state()
        at_once = Model(self._settings)
        for kind, store in stores.items():
            for key, obj in store.snapshot().items():
                at_once.put(kind, key, obj)
        at_once.drain(now_s=NOW_S)
        assert at_once.state() == state, "what came step by step is not what comes at once"
        assert at_once.verdicts() == self.model.verdicts(), "verdicts depend on the order of changes"
        if self._is_kept:
            _check_kept(state)


def _check_kept(state: Changes) -> None:
    vhost, service = state.vhosts.get(KEPT_HOST), state.services.get(_KEPT_SERVICE)
    assert vhost is not None, "an object took another one's route away"
    assert [rule.object for rule in vhost.rules] == [ObjectKey(KEPT_NAME, KEPT_NAME)]
    assert service is not None, "an object took another one's endpoints away"
    assert [(one.addr, one.port) for one in service.endpoints] == [(bytes((10, 0, 0, 9)), 8080)]
