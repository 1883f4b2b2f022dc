"""A writer of Events, an API server on paper that keeps them, and a clock that moves when the test says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from atsk8s.api.meta import KubeObject
from atsk8s.errors import KubeError, Reason
from atsk8s.model.ir import Condition, ObjectRef
from atsk8s.source.kinds import INGRESS, KINDS, AnyKind
from atsk8s.source.kube.events import EventWriter
from atsk8s.source.kube.writing import Reply
from atsk8s.source.store import Store

Json = dict[str, Any]
STARTED_S = 1_800_000_000.0  # Unix time of the clock's 0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return STARTED_S + self.now_s


class Source:
    """Stores, and nothing else of a source."""

    def __init__(self) -> None:
        self.stores: dict[AnyKind, Store[Any]] = {kind: Store(kind) for kind in KINDS}

    def store(self, kind: AnyKind) -> Store[Any]:
        return self.stores[kind]

    def ingress(self, name: str, namespace: str = "ns") -> ObjectRef:
        meta = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": "1"}
        made: KubeObject = msgspec.convert({"metadata": meta, "spec": {}}, INGRESS.item)
        self.stores[INGRESS].put(made.key, made)
        return ObjectRef(kind="Ingress", namespace=namespace, name=name)


class PaperServer:
    """Keeps Events as an API server does; several writers may share one."""

    def __init__(self) -> None:
        self.events: dict[str, Json] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Reply | KubeError] = []  # the next answers
        self.always: Callable[[str, str], Reply | None] = lambda _method, _path: None
        self.n_unauthorized = 0
        self.version = 0
        self.is_closed = False

    def send(self, method: str, path: str, body: bytes = b"", *, content_type: str = "", accept: str = "") -> Reply:
        self.requests.append((method, path))
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, KubeError):
                raise fault
            return fault
        if (answer := self.always(method, path)) is not None:
            return answer
        if method == "GET":
            return Reply(status=200, body=b'{"metadata": {"uid": "asked"}}')
        said = json.loads(body)
        name = f"{path}/{said['metadata']['name']}" if method == "POST" else path
        if method == "POST":
            if name in self.events:
                return Reply(status=409, body=b"{}")
            self.events[name] = said
        elif name not in self.events:
            return Reply(status=404, body=b"{}")
        stored = self.events[name]
        version = said.get("metadata", {}).get("resourceVersion", "")
        if version and version != stored["metadata"]["resourceVersion"]:
            return Reply(status=409, body=b"{}")
        if said:
            self.version += 1
            stored.update({key: value for key, value in said.items() if key != "metadata"})
            stored["metadata"]["resourceVersion"] = str(self.version)
        return Reply(status=201 if method == "POST" else 200, body=json.dumps(stored).encode())

    def unauthorized(self) -> None:
        self.n_unauthorized += 1

    def close(self) -> None:
        self.is_closed = True

    @property
    def n_created(self) -> int:
        return sum(method == "POST" for method, _ in self.requests)


class World:
    def __init__(self, server: PaperServer | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.source = Source()
        self.server = server or PaperServer()
        self.writer = EventWriter(
            self.source,  # type: ignore[arg-type]  # the stores are all that is asked for
            lambda: self.server,
            clock=self.clock,
            wall_clock=self.clock.wall,
            jitter=lambda low, _: low,
        )

    def run(self, seconds: float) -> None:
        """Let the writer work for so long."""
        end = self.clock.now_s + seconds
        while (wait_s := self.writer.step()) == 0 or self.clock.now_s + wait_s <= end:
            self.clock.now_s += wait_s
        self.clock.now_s = end

    def reject(self, ref: ObjectRef, message: str = "is taken", reason: Reason = Reason.CONFLICT) -> None:
        self.writer.tell(ref, (Condition(object=ref, reason=reason, message=message, fatal=True),))
