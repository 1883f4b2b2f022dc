"""What would become of every object of some manifests: accepted, rejected and why, in conflict, ignored, partly without effect."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import IO, Any, Final

from atsk8s.api.meta import ObjectKey
from atsk8s.cluster_settings.state import ClusterSettings
from atsk8s.config import parse_settings
from atsk8s.errors import KubeError, Reason
from atsk8s.model.ir import Condition, ObjectRef
from atsk8s.model.normalise import RequestFault, normalise_host
from atsk8s.model.state import Model
from atsk8s.settings import Settings
from atsk8s.source.documents import Plain
from atsk8s.source.interface import Problem
from atsk8s.source.kinds import CONFIG_MAP, INGRESS, KINDS, SECRET
from atsk8s.source.manifest_objects import key_of
from atsk8s.source.manifests import MAX_FILE_BYTES, ManifestSource
from atsk8s.tools.unused import unused_fields

READ_TIMEOUT_S: Final = 60.0  # for a directory to be read
REFUSED_MAX: Final = 50
STDIN_NAME: Final = "stdin.yaml"


@unique
class Outcome(StrEnum):
    """What becomes of an object or a document.  PARTLY: what is named has no effect, everything else of it has."""

    ACCEPTED = "accepted"
    PARTLY = "partly"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    IGNORED = "ignored"

    @property
    def is_wrong(self) -> bool:
        return self not in (Outcome.ACCEPTED, Outcome.IGNORED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to say of an object."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of one object, or of a file or document that is none."""

    what: str  # "Ingress ns/name", or "file:line"
    outcome: Outcome
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Manifests, read."""

    model: Model
    verdicts: Mapping[ObjectRef, tuple[Condition, ...]]
    problems: tuple[Problem, ...]
    objects: tuple[ObjectRef, ...]  # all that are in use or could be
    unused: Mapping[ObjectRef, tuple[Finding, ...]]  # fields without effect


class _Recording(ManifestSource):
    """Keeps the documents as they were read."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        super().__init__(
            directory,
            watch_namespaces=settings.watch_namespaces,
            ignore_namespaces=settings.ignore_namespaces,
            own_namespaces=settings.own_namespaces,
        )
        self.documents: list[Plain] = []

    def _take(self, document: Plain, *rest: Any) -> None:
        items = document.get("items") if isinstance(document, dict) else None
        self.documents += items if isinstance(items, list) else [document]
        super()._take(document, *rest)


def load(directory: Path, options: Sequence[str]) -> Loaded:
    """The model of a directory's objects, and what was wrong with its files and documents.

    Raises:
        SettingsError, KubeError: an option is none, or the directory cannot be read.
    """
    settings: Settings = parse_settings([f"--manifests={directory.absolute()}", *(f"--{option}" for option in options)], {})
    source = _Recording(directory, settings)
    source.start()
    try:
        if not source.wait_synced(READ_TIMEOUT_S):
            raise KubeError(f"{directory}: not read within {READ_TIMEOUT_S:g} s")
    finally:
        source.stop()
    model, cluster_settings = Model(settings), ClusterSettings(settings, None)
    objects: list[ObjectRef] = []
    for kind in KINDS:
        for key, obj in source.store(kind).snapshot().items():
            if kind is CONFIG_MAP:
                cluster_settings.put(key, obj)
            else:
                model.put(kind, key, obj)
            objects.append(_ref(kind.name, key))
    cluster_settings.apply()
    model.set_grants(cluster_settings.grants)
    model.set_host_certificates(cluster_settings.certificates)
    model.drain(now_s=int(time.time()))
    verdicts = dict(model.verdicts())
    for condition in sorted(cluster_settings.conditions()):
        verdicts[condition.object] = (*verdicts.get(condition.object, ()), condition)
    return Loaded(
        model=model,
        verdicts=verdicts,
        problems=source.problems(),
        objects=tuple(objects),
        unused=_unused(source.documents),
    )


def load_stream(stream: IO[bytes], options: Sequence[str]) -> Loaded:
    """The same of one text, as `kustomize build` writes it.

    Raises:
        KubeError: it is larger than a file may be.
    """
    content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise KubeError(f"standard input has more than {MAX_FILE_BYTES} bytes: give a directory")
    with tempfile.TemporaryDirectory(prefix="atsk8s-") as directory:
        Path(directory, STDIN_NAME).write_bytes(content)
        return load(Path(directory), options)


def check(loaded: Loaded) -> list[Verdict]:
    """What becomes of everything, in a fixed order: what is no object first."""
    found = [_of_problem(problem) for problem in loaded.problems]
    verdicts = loaded.verdicts
    for ref in sorted({*loaded.objects, *verdicts}):
        conditions, unused = verdicts.get(ref, ()), loaded.unused.get(ref, ())
        findings = tuple(Finding(reason=str(one.reason), message=one.message) for one in conditions) + unused
        outcome = _outcome(conditions, has_unused=bool(unused))
        if ref.kind == INGRESS.name and ref not in verdicts:
            outcome = Outcome.IGNORED
            findings = (Finding(reason="OtherClass", message="its class is none of ours: see --option ingress-class=NAME"),)
        found.append(Verdict(what=str(ref), outcome=outcome, findings=findings))
    return found


def refused_claims(model: Model, authority: str) -> Sequence[Mapping[str, str]]:
    """Objects that speak of a request's host and are not, or not wholly, in use: who else wanted it."""
    host = normalise_host(authority.encode("utf-8", "surrogateescape"))
    if isinstance(host, RequestFault) or not host.name:
        return []
    name = host.name.decode("ascii")
    names = (name, f"*.{name.partition('.')[2]}")
    return [
        {"object": str(ref), "reason": str(condition.reason), "message": condition.message}
        for ref, conditions in model.verdicts().items()
        for condition in conditions
        if any(one in condition.message for one in names)
    ][:REFUSED_MAX]


def _outcome(conditions: Sequence[Condition], *, has_unused: bool) -> Outcome:
    if any(one.fatal and one.reason != Reason.CONFLICT for one in conditions):
        return Outcome.REJECTED
    if any(one.reason == Reason.CONFLICT for one in conditions):
        return Outcome.CONFLICT
    return Outcome.PARTLY if conditions or has_unused else Outcome.ACCEPTED


def _of_problem(problem: Problem) -> Verdict:
    is_foreign = problem.reason is Reason.UNKNOWN_KIND or (problem.kind == SECRET.name and problem.reason is Reason.UNSUPPORTED)
    return Verdict(
        what=f"{problem.origin}: {problem.kind} {problem.key}" if problem.kind and problem.key else problem.origin,
        outcome=Outcome.IGNORED if is_foreign else Outcome.REJECTED,
        findings=(Finding(reason=str(problem.reason), message=problem.message),),
    )


def _unused(documents: Sequence[Plain]) -> Mapping[ObjectRef, tuple[Finding, ...]]:
    kinds = {kind.name: kind for kind in KINDS}
    found: dict[ObjectRef, tuple[Finding, ...]] = {}
    for document in documents:
        fields = [Finding(reason="NoEffect", message=f"{field}: {remedy}") for field, remedy in unused_fields(document)]
        if not fields or not isinstance(document, dict):
            continue
        kind = kinds.get(str(document.get("kind")))
        key = key_of(kind, document) if kind is not None else None
        if kind is not None and key is not None:
            ref = _ref(kind.name, key)
            found[ref] = (*found.get(ref, ()), *fields)
    return found


def _ref(kind: str, key: ObjectKey) -> ObjectRef:
    return ObjectRef(kind=kind, namespace=key.namespace, name=key.name)
