"""The key and the metadata of an object: what every kind has."""

from __future__ import annotations

from collections.abc import Iterable
from sys import intern
from typing import Annotated, TypeVar

import msgspec

from atsk8s.api.absent import Seconds, Text, Texts, fill, unix_seconds
from atsk8s.errors import Reason, RejectError

MAX_NAME_CHARS = 253  # RFC 1123 subdomain, the longest name that the API server takes for our kinds
MAX_ANNOTATION_CHARS = 256 * 1024  # of all that we keep of one object; apimachinery's TotalAnnotationSizeLimitB

# One empty dict for every object without annotations or labels: 64 bytes each otherwise.  Nobody writes to a decoded object.
_NOTHING: dict[str, str] = {}

# An empty name is a legal struct (metadata may be absent in a file); `KubeObject.key` refuses it.
_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)]


class ObjectKey(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """Identity of an object within its kind.  `namespace` is "" for a cluster-scoped kind.

    Sorting goes by namespace, then name; for the API's own tie-break sort by `str(key)` ("a-b/x" < "a/x").
    """

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """metav1.ObjectMeta without what nothing here reads (managedFields, ownerReferences, finalizers, generateName)."""

    name: _Name = ""
    namespace: _Name = ""
    uid: str = ""
    resource_version: str = ""
    created_s: Seconds = msgspec.field(
        name="creationTimestamp", default=0
    )  # since 1970; a manifest's place in file order if absent
    generation: int = 0  # spec generation; not every kind counts it
    annotations: Texts = msgspec.field(default_factory=lambda: _NOTHING)
    labels: Texts = msgspec.field(default_factory=lambda: _NOTHING)
    deletion_timestamp: Text = ""  # RFC 3339; "" unless the object is being deleted

    def __post_init__(self) -> None:
        if self.created_s.__class__ is not int:
            fill(self, "created_s", unix_seconds(self.created_s))
        if not self.annotations:
            fill(self, "annotations", _NOTHING)
        if not self.labels:
            fill(self, "labels", _NOTHING)
        if not self.deletion_timestamp:
            fill(self, "deletion_timestamp", "")


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and "/" not in name


class KubeObject(msgspec.Struct, frozen=True, gc=False):
    """What every kind starts with."""

    metadata: ObjectMeta

    @property
    def key(self) -> ObjectKey:
        """A new key each time: take it once and keep it.

        Raises:
            RejectError: the object has no name, or one that no API server accepts: names go into logs and verdicts as they are.
        """
        meta = self.metadata
        if not meta.name:
            raise RejectError(Reason.MALFORMED, "metadata.name is empty: give the object a name")
        if not (_is_plain(meta.name) and _is_plain(meta.namespace)):
            raise RejectError(Reason.MALFORMED, "metadata.name or metadata.namespace is no name: correct it")
        return ObjectKey(intern(meta.namespace), meta.name)


K = TypeVar("K", bound=KubeObject)


def trim(obj: K, annotation_prefixes: tuple[str, ...], label_names: Iterable[str] | None) -> K:
    """Drop the annotations and labels that nobody reads, in place, and return `obj`.

    `kubectl.kubernetes.io/last-applied-configuration` alone is larger than all that we need of an Ingress.

    Args:
        obj: freshly decoded and not yet shared with another thread: this finishes its construction.
        annotation_prefixes: an annotation is kept if its name starts with one of them.
        label_names: the labels to keep; None keeps all (a Namespace is selected by any label).

    Raises:
        RejectError: what would be kept is larger than `MAX_ANNOTATION_CHARS`.
    """
    meta = obj.metadata
    if meta.annotations:
        kept = {name: value for name, value in meta.annotations.items() if name.startswith(annotation_prefixes)}
        n_chars = sum(len(name) + len(value) for name, value in kept.items())
        if n_chars > MAX_ANNOTATION_CHARS:
            raise RejectError(
                Reason.TOO_LARGE,
                f"metadata.annotations: {n_chars} characters, at most {MAX_ANNOTATION_CHARS} are taken: shorten or remove some",
            )
        fill(meta, "annotations", kept or _NOTHING)
    if meta.labels and label_names is not None:
        fill(meta, "labels", {n: intern(meta.labels[n]) for n in label_names if n in meta.labels} or _NOTHING)
    return obj
