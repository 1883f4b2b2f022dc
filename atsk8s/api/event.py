"""Kubernetes' core/v1 Event: as it is written, and as much of one as is read back before it is written again."""

from __future__ import annotations

import msgspec

from atsk8s.api.absent import Filled, Text, fill, present


class EventMeta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """metav1.ObjectMeta of an Event that is to be created."""

    name: str
    namespace: str


class ObjectReference(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """core/v1 ObjectReference: what an Event is about.  `kubectl describe` finds Events by all of these."""

    api_version: str
    kind: str
    namespace: str  # "" of a cluster-scoped object
    name: str
    uid: str  # "" if nobody knows it


class EventSource(msgspec.Struct, frozen=True, gc=False):
    """core/v1 EventSource.  Without a host: every replica says the same."""

    component: str


class Event(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """core/v1 Event.  Timestamps are RFC 3339, UTC, whole seconds (metav1.Time)."""

    metadata: EventMeta
    involved_object: ObjectReference
    reason: str
    message: str
    first_timestamp: str
    last_timestamp: str
    source: EventSource
    reporting_component: str
    count: int = 1
    type: str = "Warning"
    api_version: str = "v1"
    kind: str = "Event"


class StoredMeta(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a stored object's metadata."""

    uid: Text = ""
    resource_version: Text = ""

    def __post_init__(self) -> None:
        fill(self, "uid", present(self.uid, ""))
        fill(self, "resource_version", present(self.resource_version, ""))


class Stored(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of an object that is there already: any, or an Event."""

    metadata: Filled[StoredMeta] = StoredMeta()
    count: int | None = None  # of an Event, as is the next
    last_timestamp: Text = ""

    def __post_init__(self) -> None:
        fill(self, "metadata", present(self.metadata, StoredMeta()))
        fill(self, "last_timestamp", present(self.last_timestamp, ""))
