"""What lists, watches and failed requests consist of around the objects themselves (metav1)."""

from __future__ import annotations

from typing import Generic

import msgspec

from atsk8s.api.absent import Filled, Listed, Text, Texts, fill, present
from atsk8s.api.meta import K, ObjectMeta

INITIAL_EVENTS_END = "k8s.io/initial-events-end"  # annotation of the bookmark that ends a streamed list: "true"
CAUSE_TOO_LARGE = "ResourceVersionTooLarge"  # metav1.CauseTypeResourceVersionTooLarge
EXPIRED_REASONS = ("Expired", "Gone")  # metav1.StatusReasonExpired, StatusReasonGone: both come with code 410


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """A list's own version and the place where its next page starts, "" on the last one."""

    resource_version: Text = ""
    continue_: Text = msgspec.field(name="continue", default="")

    def __post_init__(self) -> None:
        if not self.resource_version:
            fill(self, "resource_version", "")
        if not self.continue_:
            fill(self, "continue_", "")


class ListPage(msgspec.Struct, Generic[K], frozen=True):
    """A page whose objects are all well formed: the fast way."""

    metadata: Filled[ListMeta] = ListMeta()
    items: Listed[K] = ()

    def __post_init__(self) -> None:
        fill(self, "metadata", present(self.metadata, ListMeta()))
        if not self.items:
            fill(self, "items", ())


class RawPage(msgspec.Struct, frozen=True):
    """A page whose objects are decoded one by one, so that a malformed one costs only itself."""

    metadata: Filled[ListMeta] = ListMeta()
    items: Listed[msgspec.Raw] = ()

    def __post_init__(self) -> None:
        fill(self, "metadata", present(self.metadata, ListMeta()))
        if not self.items:
            fill(self, "items", ())


class WatchEvent(msgspec.Struct, frozen=True, gc=False):
    """One line of a watch.  `type` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR; `object` of an ERROR is a Status."""

    type: str
    object: msgspec.Raw


class MetaOnly(msgspec.Struct, frozen=True):
    """Any object's metadata, whatever the rest looks like; a bookmark has nothing else."""

    metadata: Filled[ObjectMeta] = ObjectMeta()

    def __post_init__(self) -> None:
        fill(self, "metadata", present(self.metadata, ObjectMeta()))


class LooseMeta(msgspec.Struct, frozen=True, rename="camel"):
    """The three fields that identify a version of an object, for one that is otherwise undecodable."""

    name: Text = ""
    namespace: Text = ""
    resource_version: Text = ""
    annotations: Texts = msgspec.field(default_factory=dict)


class LooseObject(msgspec.Struct, frozen=True):
    """See `LooseMeta`."""

    metadata: LooseMeta | None = None


class StatusCause(msgspec.Struct, frozen=True):
    """metav1.StatusCause."""

    reason: Text = ""
    message: Text = ""


class StatusDetails(msgspec.Struct, frozen=True, rename="camel"):
    """metav1.StatusDetails."""

    causes: Listed[StatusCause] = ()
    retry_after_seconds: int | None = None


class Status(msgspec.Struct, frozen=True):
    """metav1.Status: the body of a failed request, and the object of an ERROR event."""

    code: int | None = None
    reason: Text = ""
    message: Text = ""
    details: StatusDetails | None = None

    @property
    def is_expired(self) -> bool:
        """The version asked for was compacted away: list again."""
        return self.code == 410 or self.reason in EXPIRED_REASONS

    @property
    def is_too_large(self) -> bool:
        """The version asked for is newer than what this API server has seen, as after a switch to one that lags."""
        causes = self.details.causes if self.details is not None else None
        if any(cause.reason == CAUSE_TOO_LARGE for cause in causes or ()):
            return True
        return "Too large resource version" in (self.message or "")  # servers before 1.20 send no cause
