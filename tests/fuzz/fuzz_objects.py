"""Answers of an API server, byte by byte, through the reflectors and the model into the C core.

The input is lines, each a word and what follows it:

    Options --tenancy=strict            the plugin's options; only the first such line counts
    Ingress {"type":"ADDED",...}        a line of that kind's watch; the next such lines belong to the same watch
    IngressList {"items":[...]}         the answer to a list
    IngressStream {"type":"ADDED",...}  a line of a streamed list
    IngressStatus {"code":410,...}      the body of a refusal

A kind is served its answers in their order.  The kinds are read one after another, each step followed by a commit.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import atsk8s.model.certificates  # the model imports it when it needs it, which is too late to be looked into  # noqa: F401
from atsk8s.config import parse_settings
from atsk8s.errors import SettingsError
from atsk8s.settings import Settings
from atsk8s.source.kinds import KINDS, AnyKind
from atsk8s.source.kube.pacing import StreamedLists
from atsk8s.source.kube.reflector import Reflector
from atsk8s.source.store import Change, Store
from tests.fuzz.commits import KEPT_NAME, Cluster, kept_objects
from tests.fuzz.made_pairs import CERTIFICATE_MARK, KEY_MARK, with_pair
from tests.fuzz.target import MutateBytes, Target, check_message, no_errors_logged
from tests.fuzz.trees import mutated_json

_ROLES = ("", "List", "Stream", "Status")
_HEADS = {f"{kind.name}{role}": (kind, role) for kind in KINDS for role in _ROLES}
_EMPTY_LIST = b'{"metadata":{"resourceVersion":"1"},"items":[]}'
_STATUS = {b"410": 410, b"403": 403, b"404": 404, b"401": 401, b"422": 422}
_STEP_S = 700.0  # longer than the memory of a refused streamed list


@dataclass(slots=True)
class _Answer:
    """transport.Response."""

    pieces: list[bytes] = field(default_factory=list)
    status: int = 200
    retry_after_s: float | None = None

    def chunks(self) -> Iterator[bytes]:
        yield from self.pieces

    def limit_silence(self, read_timeout_s: float) -> None:
        pass

    def close(self) -> None:
        pass


class _Server:
    """transport.Transport: one kind's answers, and what a quiet server says once they are used up."""

    server = "https://server.test"

    def __init__(self, answers: deque[tuple[str, list[bytes]]]) -> None:
        self.answers = answers

    def get(self, path: str, query: Mapping[str, str], read_timeout_s: float) -> _Answer:
        is_stream = "sendInitialEvents" in query
        role = "Stream" if is_stream else "" if "watch" in query else "List"
        found, lines = self.answers[0] if self.answers else ("none", [])
        if found == "Status":
            self.answers.popleft()
            return _Answer(lines, status=next((code for text, code in _STATUS.items() if text in lines[0]), 500))
        if found == role:
            self.answers.popleft()
            return _Answer(lines if role == "List" else _cut([line + b"\n" for line in lines]))
        if is_stream:
            return _Answer(status=400)
        if role == "List":
            return _Answer([_EMPTY_LIST])
        return _Answer()

    def unauthorized(self) -> None:
        pass


def _cut(lines: list[bytes]) -> list[bytes]:
    """The same bytes in pieces that do not end where lines end, as those of a connection do not."""
    stream = b"".join(lines)
    size = 1 + len(stream) % 1999
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def _parse(data: bytes) -> tuple[Settings, dict[AnyKind, deque[tuple[str, list[bytes]]]]]:
    settings: Settings | None = None
    answers: dict[AnyKind, deque[tuple[str, list[bytes]]]] = {kind: deque() for kind in KINDS}
    for line in data.split(b"\n"):
        head, _, rest = line.partition(b" ")
        word = head.decode("latin-1")
        if word == "Options" and settings is None:
            settings = _settings(rest)
        elif word in _HEADS:
            kind, role = _HEADS[word]
            mine = answers[kind]
            if role in ("", "Stream") and mine and mine[-1][0] == role:
                mine[-1][1].append(rest)
            else:
                mine.append((role, [rest]))
    return settings or Settings(), answers


def _settings(text: bytes) -> Settings | None:
    try:
        return parse_settings([word for word in text.decode("utf-8", "replace").split(" ") if word], {})
    except SettingsError:
        return None


def check(data: bytes) -> None:
    """One bad object costs itself: it is rejected or has a verdict, and everything else is as it would be without it."""
    settings, answers = _parse(with_pair(data))
    namespaces = {*settings.watch_namespaces, *settings.ignore_namespaces}
    is_kept = KEPT_NAME.encode() not in data and not namespaces and "atsk8s" in settings.ingress_classes
    cluster = Cluster(settings, is_kept=is_kept)
    now = [1000.0]

    def listener(kind: AnyKind, changes: Sequence[Change[Any]]) -> None:
        for change in changes:
            cluster.put(kind, change.key, stores[kind].get(change.key))

    stores: dict[AnyKind, Store[Any]] = {kind: Store(kind, (listener,)) for kind in KINDS}
    with no_errors_logged():
        for kind, mine in answers.items():
            server = _Server(mine)
            reflector: Reflector[Any] = Reflector(
                kind,
                stores[kind],
                server,
                clock=lambda: now[0],
                wait=lambda _: False,
                jitter=lambda low, _: low,
                streamed_lists=StreamedLists(lambda: now[0]),
            )
            n_steps = 2 * len(mine) + 2
            for _ in range(n_steps):
                reflector.step()
                now[0] += _STEP_S
                cluster.commit()
                if not server.answers:
                    break
        for kind, key, obj in kept_objects():
            stores[kind].put(key, obj)
        cluster.commit()
    for store in stores.values():
        for rejection in store.rejected.values():
            check_message(rejection.message)
    cluster.finish(stores)


def mutate(data: bytes, rng: random.Random, mutate_bytes: MutateBytes) -> bytes:
    """Lines come, go, repeat and change their kind; within a line, what its JSON describes is changed."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    head, _, rest = lines[at].partition(b" ")
    match rng.randrange(12):
        case 0:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        case 1 if len(lines) > 1:
            del lines[at]
        case 2:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = rng.choice(list(_HEADS)).encode() + b" " + rest
        case 4:
            kind = next((name for name in _HEADS if head.decode("latin-1").startswith(name)), "Ingress")
            lines[at] = kind.encode() + rng.choice(_ROLES).encode() + b" " + rest
        case _:
            lines[at] = head + b" " + mutated_json(rest, WORDS, rng, mutate_bytes).replace(b"\n", b" ")
    return b"\n".join(lines)


WORDS = (
    *("apiVersion", "kind", "metadata", "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation"),
    *("annotations", "labels", "deletionTimestamp", "spec", "ingressClassName", "defaultBackend", "rules", "host", "http", "paths"),
    *(
        "path",
        "pathType",
        "backend",
        "service",
        "port",
        "number",
        "resource",
        "apiGroup",
        "tls",
        "hosts",
        "secretName",
        "controller",
    ),
    *("parameters", "type", "externalName", "clusterIP", "clusterIPs", "ports", "targetPort", "protocol", "appProtocol", "data"),
    *("publishNotReadyAddresses", "tls.crt", "tls.key", "ca.crt", "addressType", "endpoints", "addresses", "conditions", "ready"),
    *("serving", "terminating", "zone", "hints", "forZones", "items", "continue", "code", "reason", "message", "details", "causes"),
    *("retryAfterSeconds", "object", "ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "Expired", "InternalError", "TCP", "UDP"),
    *("Exact", "Prefix", "ImplementationSpecific", "IPv4", "IPv6", "FQDN", "ExternalName", "ClusterIP", "kubernetes.io/tls"),
    *("kubernetes.io/service-name", "kubernetes.io/ingress.class", "ingressclass.kubernetes.io/is-default-class", "true", "atsk8s"),
    *("k8s.io/initial-events-end", "atsk8s.io/ingress-controller", "ResourceVersionTooLarge", "Options --tenancy=strict"),
    *(CERTIFICATE_MARK.decode(), KEY_MARK.decode()),
)
TARGET = Target(check=check, words=WORDS, mutate=mutate, size_max=32 * 1024)
