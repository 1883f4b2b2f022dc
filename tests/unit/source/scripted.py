"""An API server on paper: each request gets the next answer of a script, time passes only when the reflector waits."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atsk8s.api.meta import ObjectKey
from atsk8s.api.networking import Ingress
from atsk8s.source.kinds import INGRESS, AnyKind, Kind
from atsk8s.source.kube.pacing import StreamedLists
from atsk8s.source.kube.reflector import Reflector
from atsk8s.source.store import Change, Store

Json = dict[str, Any]
Piece = bytes | Exception | Callable[[], None]


@dataclass
class Time:
    """A clock that `wait` moves, and the stop flag.  After `end` it says stop, so that no test runs for ever."""

    now: float = 1000.0
    end: float = float("inf")
    stopped: bool = False
    waits: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        if seconds and not self.stopped:
            self.waits.append(seconds)
            self.now += seconds
        return self.stopped or self.now >= self.end


@dataclass
class Answer:
    """One response.  A piece is bytes, an exception to raise, or something to call before the next piece."""

    pieces: Sequence[Piece] = ()
    status: int = 200
    retry_after_s: float | None = None
    silence_s: float = 0.0
    closed: bool = False

    def chunks(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                yield piece
            else:
                piece()

    def limit_silence(self, read_timeout_s: float) -> None:
        self.silence_s = read_timeout_s

    def close(self) -> None:
        self.closed = True


@dataclass
class Request:
    path: str
    query: dict[str, str]
    read_timeout_s: float
    at: float

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"


class ScriptedTransport:
    """Answers in order; after the last one, `otherwise` for ever, or the end of the test."""

    server = "https://api.test"

    def __init__(self, time: Time, answers: Sequence[Answer | Exception], otherwise: Answer | Exception | None = None) -> None:
        self._time = time
        self._answers = deque(answers)
        self._otherwise = otherwise
        self.requests: list[Request] = []
        self.n_unauthorized = 0

    def get(self, path: str, query: Mapping[str, str], read_timeout_s: float) -> Answer:
        self.requests.append(Request(path, dict(query), read_timeout_s, self._time.now))
        if self._answers:
            answer = self._answers.popleft()
            if not self._answers and self._otherwise is None:
                self._time.stopped = True
        else:
            assert self._otherwise is not None, "one request more than the script has answers"
            answer = self._otherwise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def unauthorized(self) -> None:
        self.n_unauthorized += 1


def version_of(obj: Ingress | None) -> str | None:
    return obj.metadata.resource_version if obj is not None else None


@dataclass
class Bench:
    """A reflector, its store and what its listener heard."""

    time: Time
    transport: ScriptedTransport
    store: Store[Ingress]
    reflector: Reflector[Ingress]
    heard: list[tuple[Change[Ingress], ...]]

    @property
    def names(self) -> dict[str, str]:
        """resourceVersion by name, of what the store has."""
        return {key.name: obj.metadata.resource_version for key, obj in self.store.snapshot().items()}

    @property
    def deltas(self) -> list[tuple[str, str | None, str | None]]:
        """(name, old version, new version) of everything heard, in order."""
        return [(c.key.name, version_of(c.old), version_of(c.new)) for changes in self.heard for c in changes]

    def queries(self, *names: str) -> list[tuple[str | None, ...]]:
        """Of every request, these parameters."""
        return [tuple(request.query.get(name) for name in names) for request in self.transport.requests]


def bench(
    *answers: Answer | Exception,
    otherwise: Answer | Exception | None = None,
    seconds: float = float("inf"),
    streams: bool = False,
    kind: Kind[Ingress] = INGRESS,
    listener: Callable[[AnyKind, Sequence[Change[Any]]], None] | None = None,
    is_ignored: Callable[[ObjectKey], bool] = lambda _: False,
    run: bool = True,
) -> Bench:
    """Run a reflector over a script until its last answer is used, or with `otherwise` until `seconds` have passed."""
    time = Time()
    time.end = time.now + seconds
    transport = ScriptedTransport(time, answers, otherwise)
    store = Store(kind)
    heard: list[tuple[Change[Ingress], ...]] = []
    store.subscribe(lambda _, changes: heard.append(tuple(changes)))
    if listener is not None:
        store.subscribe(listener)
    streamed_lists = StreamedLists(time.clock)
    if not streams:
        streamed_lists.refuse()
    reflector = Reflector(
        kind,
        store,
        transport,
        clock=time.clock,
        wait=time.wait,
        jitter=lambda low, _: low,
        streamed_lists=streamed_lists,
        is_ignored=is_ignored,
    )
    if run:
        reflector.run()
    return Bench(time, transport, store, reflector, heard)


# What a server says ---------------------------------------------------------------------------------------------------------------


def ingress(name: str, version: int | str, uid: str = "", **spec: Any) -> Json:
    meta = {"name": name, "namespace": "ns", "resourceVersion": str(version), "uid": uid or f"uid-{name}"}
    return {"metadata": meta, "spec": spec or {"rules": [{"host": f"{name}.example"}]}}


def listed(version: int | str, *items: Json, more: str = "") -> Answer:
    meta = {"resourceVersion": str(version)} | ({"continue": more} if more else {})
    return Answer([json.dumps({"kind": "IngressList", "metadata": meta, "items": items}).encode()])


def event(kind: str, obj: Json) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int | str, *, ends_list: bool = False) -> bytes:
    meta: Json = {"resourceVersion": str(version), "creationTimestamp": None}
    if ends_list:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    return event("BOOKMARK", {"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": meta, "spec": {}, "status": {}})


def status(code: int, reason: str = "", *, cause: str = "", message: str = "") -> Json:
    details = {"causes": [{"reason": cause}]} if cause else {}
    return {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


def refused(code: int, reason: str = "", *, cause: str = "", retry_after_s: float | None = None) -> Answer:
    return Answer([json.dumps(status(code, reason, cause=cause)).encode()], status=code, retry_after_s=retry_after_s)


def watched(*pieces: Piece) -> Answer:
    return Answer(pieces)
