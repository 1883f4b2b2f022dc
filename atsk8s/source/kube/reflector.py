"""List and watch: keeps one store equal to what the API server has of one kind (in one namespace, or in all).

One thread runs `Reflector.run`.  It lists, publishes the list in one exchange, then watches from the list's version and applies
each event; a watch that ends is resumed from the last version seen, and only when that history is gone is the kind listed again.
The cases below are client-go's (tools/cache/reflector.go), with three differences, each because of an observed failure:
a version that goes backwards (a restored etcd) is noticed, and looked for whenever a connection was lost; a failed watch request
is repeated before it leads to a relist; and a token bucket bounds the requests in every state.

Nothing here gives up: each failure ends in a bounded wait and another try, while the store keeps what it has.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator
from typing import Generic

import msgspec

from atsk8s.api.decode import UNDECODABLE, decode_status
from atsk8s.api.meta import K, ObjectKey
from atsk8s.api.wire import MetaOnly, Status, WatchEvent
from atsk8s.errors import KubeError
from atsk8s.source.interface import Clock, Jitter, Wait
from atsk8s.source.kinds import Kind
from atsk8s.source.kube.bodies import read_body
from atsk8s.source.kube.failures import ExpiredError, NotStreamedError, RetryError
from atsk8s.source.kube.lines import LineTooLongError, split_lines
from atsk8s.source.kube.objects import Gathering, ObjectReader, initial_events_end, is_less
from atsk8s.source.kube.pacing import BACKOFF_MAX_S, RETRY_AFTER_MAX_S, UNREACHABLE_MAX_S, Backoff, RequestBudget, StreamedLists
from atsk8s.source.kube.progress import Progress
from atsk8s.source.kube.transport import ConnectionLostError, Response, SilenceError, Transport
from atsk8s.source.store import Rejection, Store, is_same_version

_log = logging.getLogger(__name__)

PAGE_ITEMS = 500  # decoding a page holds the GIL for 4-5 ms
MAX_PAGES = 20_000
MAX_PAGE_BYTES = 512 * 1024 * 1024  # a server before 1.34 ignores `limit` at version "0": 20,000 slices are 58 MB
MAX_ERROR_BYTES = 64 * 1024
LIST_READ_TIMEOUT_S = 30.0

WATCH_GRACE_S = 15.0  # a watch lives `timeoutSeconds`; silence and life both end this much later
LONG_WATCH_S = 5.0  # one that lived this long is resumed at once when its connection breaks
SHORT_WATCH_S = 1.0  # a watch that ends before this without one event is a failure (client-go's VeryShortWatchError)
OUTAGE_S = 60.0  # for so long after a request without an answer a refusal may be part of it
RELIST_SOON_S = 60.0  # a third list within this waits: a storm of 410 must not become a storm of lists
INTERNAL_ERROR_S = 60.0  # an InternalError in the stream is retried this long, then the kind is listed again

STREAMED_LIST_SILENCE_S = 30.0  # a streamed list in which nothing comes for this long has ended without saying so
STREAMED_LIST_DEADLINE_S = 180.0
STREAMED_LIST_TRIES = 3  # lost streams in a row; then pages

_event_decoder = msgspec.json.Decoder(WatchEvent)
_meta_decoder = msgspec.json.Decoder(MetaOnly)


class Reflector(Generic[K]):
    """See the module.

    Args:
        namespace: "" for all.
        is_ignored: keys whose objects are dropped as if they did not exist.
        wait: sleeps at most that many seconds; True once the reflector is to stop.
        on_progress: called when `progress.synced` or `.settled` may have changed.
    """

    def __init__(
        self,
        kind: Kind[K],
        store: Store[K],
        transport: Transport,
        *,
        clock: Clock,
        wait: Wait,
        jitter: Jitter,
        streamed_lists: StreamedLists,
        namespace: str = "",
        is_ignored: Callable[[ObjectKey], bool] = lambda _: False,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.progress = Progress()
        self.resource_version = ""  # of the last list, event or bookmark
        self._store = store
        self._transport = transport
        self._clock = clock
        self._wait = wait
        self._jitter = jitter
        self._streamed_lists = streamed_lists
        self._on_progress = on_progress
        self._path = kind.path(namespace)
        self._reader = ObjectReader(kind, is_ignored)
        self._backoff = Backoff(clock, jitter)
        self._budget = RequestBudget(clock)
        self._needs_list = True
        self._needs_quorum = False
        self._in_doubt = False  # whether the server still knows the version that we would watch from
        self._went_back = False  # it does not: versions that we have may have been given anew, to something else
        self._list_at = self._list_before_at = float("-inf")  # when the last list was taken in, and the one before
        self._listed_version = ""  # of the last list
        self._lost_at = float("-inf")  # when a request last had no answer
        self._internal_error_at: float | None = None
        self._n_streams_lost = 0
        self._opened_at: float | None = None  # of the watch that this step opened

    def run(self) -> None:
        """List and watch until `wait` says to stop.  Called again, after something ended it, it begins with a list."""
        if self.progress.moved_at is not None:
            self._needs_list = True
            self._store.doubt()
        while not self._wait(0):
            self.step()

    def step(self) -> None:
        """One list or one watch, and the wait that its failure asks for.  Raises nothing."""
        self._moved()
        delay_s = self._budget.take_s()
        if delay_s and self._wait(delay_s):
            return
        self._opened_at = None
        try:
            if not self._needs_list:
                if self._in_doubt:
                    self._check_version()
                else:
                    self._watch()
                return
            if self._streamed_lists.is_worth_a_try() and self._n_streams_lost < STREAMED_LIST_TRIES:
                self._watch_list()
            else:
                self._n_streams_lost = 0
                self._list()
            return
        except NotStreamedError as error:
            self._streamed_lists.refuse()
            _log.info("lists are fetched in pages", extra={"kind": self.kind.name, "why": str(error)})
            return
        except ExpiredError as error:
            # 410 to a list, or to a watch from where a list has just begun, or an unusable version: only a read from etcd leads on.
            # 410 to another watch: a list "not older than" what was seen comes from the API server's memory, and never goes back.
            is_futile = self._needs_list and self._needs_quorum
            self._needs_quorum = error.is_quorum or self._needs_list or self.resource_version == self._listed_version
            self._needs_list = True
            delay_s = 0.0
            if is_futile or self._clock() - self._list_before_at < RELIST_SOON_S:
                delay_s = self._backoff.next_s()
            self._failed(error)
        except RetryError as error:
            self._in_doubt |= error.is_outage
            # A server that has just come back says 403 and 5xx for a moment: as long as it is likely to, it is asked more often.
            max_s = UNREACHABLE_MAX_S if self._clock() - self._lost_at < OUTAGE_S else BACKOFF_MAX_S
            delay_s = max(min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S), self._backoff.next_s(max_s))
            self._failed(error)
        except KubeError as error:
            self._in_doubt = True
            delay_s = self._delay_after_loss(error)
            self._failed(error)
        except Exception:  # a bug of ours must not end the thread: the kind would be frozen for ever
            self._needs_list = True
            delay_s = self._backoff.next_s()
            self.progress.reason = "internal error, see the log"
            _log.exception("reflector failed", extra={"kind": self.kind.name, "namespace": self.namespace})
        self._moved()
        if delay_s:
            self._wait(delay_s)

    @property
    def n_undecodable(self) -> int:
        """Objects that could not be used, ever, including those without a name."""
        return self._reader.n_undecodable

    @property
    def _where(self) -> str:
        return f"{self._transport.server}{self._path}"

    def _delay_after_loss(self, error: KubeError) -> float:
        if self._opened_at is None:
            self._lost_at = self._clock()
            return self._backoff.next_s(UNREACHABLE_MAX_S if isinstance(error, ConnectionLostError) else BACKOFF_MAX_S)
        if self._clock() - self._opened_at > LONG_WATCH_S and not self._needs_list:
            return 0.0
        return self._backoff.next_s()

    # Requests -----------------------------------------------------------------------------------------------------------------

    def _get(self, query: dict[str, str], read_timeout_s: float) -> Response:
        """A response with status 200; everything else becomes an exception."""
        self.progress.n_requests += 1
        response = self._transport.get(self._path, {**self.kind.selector, **query}, read_timeout_s)
        if response.status == 200:
            return response
        try:
            status = decode_status(self._body(response, MAX_ERROR_BYTES))
        except KubeError:
            status = Status()
        finally:
            response.close()
        raise self._refusal(response, status, query)

    def _refusal(self, response: Response, status: Status, query: dict[str, str]) -> KubeError:
        code = response.status
        said = f"{self._where}: {code} {status.reason or ''} {status.message or ''}".strip()
        if code == 410 or status.is_expired:
            return ExpiredError(said)
        if status.is_too_large:
            return ExpiredError(said, is_quorum=True)
        if code in (400, 422) and "sendInitialEvents" in query:
            return NotStreamedError(said)
        if code == 401:
            self._transport.unauthorized()
            return RetryError(f"{said} (the credentials are refused: has the token expired?)", response.retry_after_s)
        if code in (403, 404):
            self._settle()
            if code == 404 and self.kind.removable:
                self._gone()
            hint = "allow get, list and watch in RBAC" if code == 403 else "the API server does not have this kind"
            return RetryError(f"{said} ({hint})")
        retry_after_s = response.retry_after_s
        if status.details is not None and retry_after_s is None:
            retry_after_s = status.details.retry_after_seconds
        return RetryError(said, retry_after_s, is_outage=code >= 500)

    def _gone(self) -> None:
        """The kind's definition was removed, and its objects with it."""
        self._store.replace({}, namespace=self.namespace)
        self.resource_version = ""
        self._needs_list, self._needs_quorum = True, False
        self.progress.synced = False

    def _body(self, response: Response, limit: int) -> bytes:
        return read_body(response, limit, self._clock, self._where)

    # Lists --------------------------------------------------------------------------------------------------------------------

    def _version_for_list(self) -> str:
        """The least version that will do: what we had, so as not to go back in time; "" is what etcd has now."""
        return "" if self._needs_quorum else self.resource_version

    def _list(self) -> None:
        # The first list may come from the server's memory ("0"): the watch after it catches up.
        version = self._version_for_list() or ("" if self._needs_quorum else "0")
        query = {"limit": str(PAGE_ITEMS)} | ({"resourceVersion": version} if version else {})
        if version not in ("", "0"):  # without it, a version with a limit means exactly that version, and no later one
            query["resourceVersionMatch"] = "NotOlderThan"
        gathered: Gathering[K] = Gathering()
        for _ in range(MAX_PAGES):
            response = self._get(query, LIST_READ_TIMEOUT_S)
            try:
                body = self._body(response, MAX_PAGE_BYTES)
            finally:
                response.close()
            try:
                meta = self._reader.read_page(body, gathered)
            except ValueError:
                raise RetryError(f"{self._where}: the answer is no list (is there a proxy between?)") from None
            self._contact()
            if not meta.continue_:
                self._publish(gathered, meta.resource_version)
                return
            if self._wait(0):
                return
            query = {"limit": str(PAGE_ITEMS), "continue": meta.continue_}
        raise RetryError(f"{self._where}: a list of more than {MAX_PAGES} pages")

    def _publish(self, gathered: Gathering[K], version: str) -> None:
        if version in ("", "0"):  # nothing to watch from
            raise RetryError(f"{self._where}: the list has no resourceVersion")
        went_back = self._went_back or self._is_behind(version)
        self.resource_version = self._listed_version = version
        self._list_before_at, self._list_at = self._list_at, self._clock()
        self._needs_list = self._needs_quorum = self._in_doubt = self._went_back = False
        self._n_streams_lost = 0
        self._store.replace(
            gathered.objects, gathered.rejected, namespace=self.namespace, is_same=operator.eq if went_back else is_same_version
        )
        if self.progress.synced:
            self.progress.n_relists += 1
        self.progress.synced = True
        self._settle()
        self._contact()

    # Watches ------------------------------------------------------------------------------------------------------------------

    def _watch_query(self) -> tuple[dict[str, str], float]:
        watch_s = int(self._jitter(*self.kind.watch_s))
        return {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(watch_s)}, watch_s

    def _check_version(self) -> None:
        """Ask what version there is now, before a watch is resumed on a new connection.

        An API server whose etcd was restored to an older state accepts a watch from a version that it has not reached, and says
        nothing, not even in bookmarks, until it has: what was made since the backup would be routed to for ever.  A list without a
        version is read from etcd (or is as new), and one of one object costs next to nothing.
        """
        response = self._get({"limit": "1"}, LIST_READ_TIMEOUT_S)
        try:
            version = _meta_decoder.decode(self._body(response, MAX_PAGE_BYTES)).metadata.resource_version
        except UNDECODABLE:
            raise RetryError(f"{self._where}: the answer is no list (is there a proxy between?)") from None
        except ConnectionLostError as error:
            raise RetryError(str(error)) from None
        finally:
            response.close()
        if not version:
            raise RetryError(f"{self._where}: the list has no resourceVersion")
        if self._is_behind(version):
            raise self._time_went_back(version)
        self._in_doubt = False

    def _time_went_back(self, version: str) -> ExpiredError:
        self._went_back = True
        return ExpiredError(
            f"{self._where}: version went back from {self.resource_version} to {version} (was etcd restored?)", is_quorum=True
        )

    def _watch(self) -> None:
        """Apply events until the stream ends.  Returning means: it ended as it should, watch again at once."""
        query, watch_s = self._watch_query()
        query["resourceVersion"] = self.resource_version
        started = self._clock()
        is_empty = True
        response = self._open_watch(query, watch_s + WATCH_GRACE_S)
        try:
            for event in self._events(response, started + watch_s + WATCH_GRACE_S):
                is_empty = False
                self._apply(event)
        finally:
            response.close()
        if is_empty and self._clock() - started < SHORT_WATCH_S:
            raise RetryError(f"{self._where}: the watch ended at once, without an event")
        self._in_doubt = is_empty  # not so much as a bookmark: see `_check_version`

    def _watch_list(self) -> None:
        """A list as a stream: ADDED for every object, then a bookmark that says so, then the watch goes on in the same stream.

        Objects are gathered aside and published at that bookmark, with its version: the ADDED events are in no order of version,
        so none of theirs may be resumed from.
        """
        query, watch_s = self._watch_query()
        query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        if version := self._version_for_list():
            query["resourceVersion"] = version
        started = self._clock()
        gathered: Gathering[K] | None = Gathering()
        response = None
        try:
            response = self._open_watch(query, STREAMED_LIST_SILENCE_S)
            for event in self._events(response, started + watch_s + WATCH_GRACE_S):
                if gathered is None:
                    self._apply(event)
                elif self._clock() - started > STREAMED_LIST_DEADLINE_S:
                    raise NotStreamedError(f"a streamed list did not end within {STREAMED_LIST_DEADLINE_S:g} s")
                elif event.type != "BOOKMARK":
                    self._gather(event, gathered)
                elif (end := initial_events_end(event)) is not None:
                    self._publish(gathered, end)
                    gathered = None
                    response.limit_silence(watch_s + WATCH_GRACE_S)
        except SilenceError:
            if gathered is not None:  # a server that stands still, or a proxy that holds the answer back: by pages then, this time
                self._n_streams_lost = STREAMED_LIST_TRIES
            raise
        except ConnectionLostError:
            self._n_streams_lost += gathered is not None
            raise
        finally:
            if response is not None:
                response.close()
        if gathered is not None:
            self._n_streams_lost += 1
            raise RetryError(f"{self._where}: the streamed list ended before its end was announced")

    def _open_watch(self, query: dict[str, str], silence_s: float) -> Response:
        response = self._get(query, silence_s)
        self._opened_at = self._clock()
        self._contact()
        return response

    def _events(self, response: Response, deadline: float) -> Iterator[WatchEvent]:
        """The stream's events.  A server that drips bytes to keep a dead watch alive meets `deadline`."""
        rest: list[bytes] = []

        def pieces() -> Iterator[bytes]:
            for piece in response.chunks():
                if self._clock() > deadline:
                    raise RetryError(f"{self._where}: the watch outlived its time", is_outage=True)
                yield piece

        try:
            for line in split_lines(pieces(), rest):
                try:
                    event = _event_decoder.decode(line)
                except UNDECODABLE:
                    raise ExpiredError(f"{self._where}: a line of the watch is no event") from None
                if event.type == "ERROR":
                    raise self._error_event(event)
                self._contact()
                yield event
        except LineTooLongError as error:
            raise ExpiredError(f"{self._where}: {error}") from None
        if b"".join(rest).strip():
            raise ConnectionLostError(f"{self._where}: the watch broke off inside an event")

    def _error_event(self, event: WatchEvent) -> KubeError:
        status = decode_status(event.object)
        said = f"{self._where}: watch: {status.code} {status.reason or ''} {status.message or ''}"
        if status.is_expired:
            return ExpiredError(said)
        if status.is_too_large:
            return ExpiredError(said, is_quorum=True)
        if status.reason == "InternalError" or status.code == 500:
            now = self._clock()
            if self._internal_error_at is None:
                self._internal_error_at = now
            elif now - self._internal_error_at > INTERNAL_ERROR_S:
                self._internal_error_at = None
                return ExpiredError(said)
        return RetryError(said, status.details.retry_after_seconds if status.details is not None else None)

    def _bookmark(self, event: WatchEvent) -> None:
        """A version up to which there is nothing more to tell: no change of any object."""
        try:
            version = _meta_decoder.decode(event.object).metadata.resource_version
        except UNDECODABLE:
            return
        if self._is_behind(version):
            raise self._time_went_back(version)
        if version:
            self.resource_version = version
            self._internal_error_at = None

    def _gather(self, event: WatchEvent, gathered: Gathering[K]) -> None:
        key, _, found = self._reader.read(event.object)
        self.progress.n_events += 1
        if key is not None:
            gathered.take(key, found, is_deleted=event.type == "DELETED")

    def _apply(self, event: WatchEvent) -> None:
        """One change.  ADDED and MODIFIED are the same to a store: replays and gaps make either come for any key."""
        if event.type == "BOOKMARK":
            self._bookmark(event)
            return
        self.progress.n_events += 1
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            return
        key, version, found = self._reader.read(event.object)
        if key is not None:
            if self._is_behind(version):
                self._apply_behind(event, key, version, found)
                return
            if event.type == "DELETED":
                self._store.delete(key)
            elif isinstance(found, Rejection):
                self._store.reject(key, found)
            elif found is not None:
                self._store.put(key, found)
        if version:
            self.resource_version = version
            self._internal_error_at = None

    def _apply_behind(self, event: WatchEvent, key: ObjectKey, version: str, found: K | Rejection | None) -> None:
        """An event older than what was seen: a replay of what is known is nothing; anything else means that time went back."""
        known = self._store.get(key)
        if known is None:
            if event.type == "DELETED" or found is None:
                return
        elif not is_less(known.metadata.resource_version, version) and (
            found is None or isinstance(found, Rejection) or known.metadata.uid == found.metadata.uid
        ):
            return
        raise self._time_went_back(version)

    # State --------------------------------------------------------------------------------------------------------------------

    def _is_behind(self, version: str) -> bool:
        return is_less(version, self.resource_version)

    def _moved(self) -> None:
        self.progress.moved_at = self._clock()

    def _contact(self) -> None:
        self._moved()
        self.progress.contact_at = self._clock()
        if self.progress.synced:
            self.progress.reason = ""

    def _settle(self) -> None:
        self.progress.settled = True
        self._on_progress()

    def _failed(self, error: KubeError) -> None:
        if self._wait(0):
            return  # we cut the connection ourselves
        self.progress.reason = str(error)
        _log.warning("list or watch failed", extra={"kind": self.kind.name, "namespace": self.namespace, "why": str(error)})
        self._on_progress()
