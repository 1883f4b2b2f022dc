"""From bytes to objects of one kind, one bad object at a time: what both a list and a watch need."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic

import msgspec

from atsk8s.api.decode import UNDECODABLE, Decoder, identify
from atsk8s.api.meta import K, ObjectKey, trim
from atsk8s.api.wire import INITIAL_EVENTS_END, ListMeta, ListPage, MetaOnly, RawPage, WatchEvent
from atsk8s.errors import RejectError
from atsk8s.source.kinds import Kind
from atsk8s.source.kube.sharing import Sharing
from atsk8s.source.store import Rejection

_log = logging.getLogger(__name__)

_meta_decoder = msgspec.json.Decoder(MetaOnly)
_raw_page_decoder = msgspec.json.Decoder(RawPage)


class Gathering(Generic[K]):
    """A list in the making: becomes the store's content in one exchange, or nothing at all."""

    def __init__(self) -> None:
        self.objects: dict[ObjectKey, K] = {}
        self.rejected: dict[ObjectKey, Rejection] = {}

    def take(self, key: ObjectKey, found: K | Rejection | None, *, is_deleted: bool) -> None:
        """Take in what an event of a streamed list says of an object."""
        self.rejected.pop(key, None)
        if is_deleted:
            self.objects.pop(key, None)
        elif isinstance(found, Rejection):
            self.rejected[key] = found
        elif found is not None:
            self.objects[key] = found


class ObjectReader(Generic[K]):
    """Decodes, trims and rejects.  Used by one thread.

    Args:
        is_ignored: keys whose objects are dropped as if they did not exist.
    """

    def __init__(self, kind: Kind[K], is_ignored: Callable[[ObjectKey], bool]) -> None:
        self.n_undecodable = 0  # objects, including those without a name, which no store can show
        self.is_ignored = is_ignored
        self._kind = kind
        self._sharing = Sharing()
        self._decoder = Decoder(kind.item)
        self._page_decoder: msgspec.json.Decoder[ListPage[K]] = msgspec.json.Decoder(ListPage[kind.item])  # type: ignore[name-defined]

    def read(self, raw: bytes | msgspec.Raw) -> tuple[ObjectKey | None, str, K | Rejection | None]:
        """Key, version and object; a Rejection for an unusable one, None for an ignored one; no key if it cannot even be named."""
        try:
            obj = self._decoder.decode(raw)
            key, version = obj.key, obj.metadata.resource_version
            if self.is_ignored(key):
                return key, version, None
            return key, version, self._finish(obj)
        except RejectError as error:
            named, version = identify(raw)
            return named, version, self._reject(named, version, error)

    def read_page(self, body: bytes, into: Gathering[K]) -> ListMeta:
        """Take a page's objects in.

        Raises:
            ValueError: the body is no list at all.
        """
        try:
            page = self._page_decoder.decode(body)
        except UNDECODABLE:
            return self._read_page_item_by_item(body, into)
        for obj in page.items:
            try:
                key = obj.key
                if not self.is_ignored(key):
                    into.objects[key] = self._finish(obj)
            except RejectError as error:
                meta = obj.metadata
                named = ObjectKey(meta.namespace, meta.name) if meta.name else None
                why = self._reject(named, meta.resource_version, error)
                if named is not None and why is not None:
                    into.rejected[named] = why
        return page.metadata

    def _finish(self, obj: K) -> K:
        return self._sharing.share(trim(obj, self._kind.annotation_prefixes, self._kind.label_names))

    def _read_page_item_by_item(self, body: bytes, into: Gathering[K]) -> ListMeta:
        try:
            page = _raw_page_decoder.decode(body)
        except UNDECODABLE:
            raise ValueError("not a list") from None
        for raw in page.items:
            key, _, found = self.read(raw)
            if key is None or found is None:
                continue
            if isinstance(found, Rejection):
                into.rejected[key] = found
            else:
                into.objects[key] = found
        return page.metadata

    def _reject(self, key: ObjectKey | None, version: str, error: RejectError) -> Rejection | None:
        if key is not None and self.is_ignored(key):
            return None
        self.n_undecodable += 1
        _log.warning(
            "object rejected",
            extra={
                "kind": self._kind.name,
                "object": str(key) if key is not None else "without a name",
                "reason": error.reason.value,
                "detail": error.message,
            },
        )
        return Rejection(reason=error.reason, message=error.message, resource_version=version)


def initial_events_end(event: WatchEvent) -> str | None:
    """The version that a bookmark ends a streamed list with; None: it ends none."""
    try:
        meta = _meta_decoder.decode(event.object).metadata
    except UNDECODABLE:
        return None
    return meta.resource_version if meta.annotations.get(INITIAL_EVENTS_END) == "true" else None


def is_less(a: str, b: str) -> bool:
    """Versions compare as integers (KEP-5504); of anything else nothing is concluded."""
    return a.isdecimal() and b.isdecimal() and len(a) < 40 and len(b) < 40 and int(a) < int(b)
