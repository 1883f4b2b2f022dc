"""Kubernetes Events: what is wrong with an object, told where its author looks (`kubectl describe`).

On problems only, of type Warning.  Each replica writes by itself and needs no election: an Event's name follows from the object,
the reason and the message, so that all replicas, and the same one after a restart, meet in one Event.  Who comes first creates it;
who finds it there looks when it was last told of, and counts it up only when that is more than `RECENT_S` ago, against the version
it has seen: of several who do so at once one wins, and the others have nothing to add.  `create` and `patch` on events are all the
rights it needs: an empty patch writes nothing and answers with the object.

Of core/v1 and not events.k8s.io/v1: both are one object to the server, but rights to write Events are given for the former by the
roles that clusters have, its count is a number and no series to keep, and `kubectl` shows it as "x3 over 5m".

One thread of its own; nothing waits for it.  What is told is bounded in number and size, what is sent in rate; what fails is tried
again later, and costs a log line in `LOG_EVERY_S`.  An Event that is lost costs its reader a look at the log or at /conditions.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Protocol

import msgspec

from atsk8s.api.decode import UNDECODABLE, decode_status
from atsk8s.api.event import Event, EventMeta, EventSource, ObjectReference, Stored
from atsk8s.api.meta import ObjectKey
from atsk8s.errors import KubeError
from atsk8s.source.interface import Clock, Jitter, Source
from atsk8s.source.kinds import KINDS, AnyKind
from atsk8s.source.kube.event_texts import Problem, bounded, event_name, is_named, unix_s
from atsk8s.source.kube.pacing import RETRY_AFTER_MAX_S, Backoff, TokenBucket
from atsk8s.source.kube.writing import Reply, Writer
from atsk8s.threads import Keeper, Kept

_log = logging.getLogger(__name__)

# Of the whole process: a second's worth of Events is what a second's worth of requests to an API server should be, and a start in a
# cluster with many problems tells of the first ones at once.
EVENTS_AT_ONCE: Final = 20
EVENTS_PER_S: Final = 1.0
# Of one object: who edits it again and again, or two who fight over it, must not use up everybody's.
OBJECT_EVENTS_AT_ONCE: Final = 5
OBJECT_EVENTS_PER_S: Final = 1 / 60
OBJECTS_MAX: Final = 1000  # objects with problems that are remembered; what is wrong with more is in the log and in /conditions
NAMESPACE_OBJECTS_MAX: Final = 200  # of them, in one namespace: one team's mistakes do not hide another's
PROBLEMS_MAX: Final = 8  # of one object
RECENT_S: Final = 600.0  # an Event that was told of so lately, by whichever replica, is not counted up
REPEAT_S: Final = (1200.0, 1800.0)  # a problem that stands is told again after a while in this range: Events live for an hour
REFUSED_S: Final = 60.0  # before a namespace that refused (403) is tried again
REJECTIONS_LOOK_S: Final = 5.0  # how often objects that could not even be decoded are looked for
LOG_EVERY_S: Final = 600.0  # between two lines that say the same
IDLE_S: Final = 5.0
STOP_S: Final = 0.3  # a stop waits no longer for a write under way
COMPONENT: Final = "atsk8s"
CONTROLLER: Final = "atsk8s.io/ingress-controller"

_KINDS: Final[Mapping[str, AnyKind]] = {kind.name: kind for kind in KINDS}
_MERGE: Final = "application/merge-patch+json"
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_stored = msgspec.json.Decoder(Stored)
_encode = msgspec.json.Encoder().encode


class Told(Protocol):
    """An object as verdicts name it (model.ir.ObjectRef)."""

    @property
    def kind(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...


class Fault(Protocol):
    """One thing that is wrong with an object (model.ir.Condition)."""

    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsReport:
    """What metrics read.  A value: never changed once handed out."""

    n_written: int = 0  # created, or counted up
    n_repeated: int = 0  # found there already, told of lately
    n_refused: int = 0  # 403
    n_failed: int = 0  # no answer, or another error
    n_dropped: int = 0  # objects not taken: too many have problems


@dataclass(frozen=True, slots=True)
class _Subject:
    """What an Event is about."""

    kind: AnyKind
    key: ObjectKey
    is_undecoded: bool = False  # a version that nobody could decode; an older one may be in use, with problems of its own

    @property
    def namespace(self) -> str:
        return self.key.namespace or "default"  # where the API wants Events about what has no namespace


@dataclass(slots=True)
class _Pending:
    """A problem that stands, and when it is to be told of."""

    due_s: float
    is_there: bool = False  # its Event was seen or made


@dataclass(slots=True)
class _Standing:
    """What is wrong with one object."""

    bucket: TokenBucket
    problems: dict[Problem, _Pending] = field(default_factory=dict)
    gone_s: float | None = None  # since nothing is wrong with it any more; the bucket is remembered until it is full again


class _RefusedError(Exception):
    """403: RBAC, in this namespace."""


class _NeedlessError(Exception):
    """There is nothing to write an Event about, or nowhere: the object or its namespace is going."""


class EventWriter:
    """See the module.

    Args:
        source: where the objects are, which `tell` names.
        connect: makes the way to write, on the writer's thread; raises KubeError.
        clock: monotonic seconds.
        wall_clock: Unix time.
        jitter: uniform in [a, b].
    """

    def __init__(
        self,
        source: Source,
        connect: Callable[[], Writer],
        *,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
        jitter: Jitter = random.uniform,
    ) -> None:
        self._source = source
        self._connect = connect
        self._clock = clock
        self._wall_clock = wall_clock
        self._jitter = jitter
        self._writer: Writer | None = None
        self._inbox: dict[_Subject, tuple[Problem, ...]] = {}
        self._lock = threading.Lock()  # of the inbox and the writer
        self._standing: dict[_Subject, _Standing] = {}
        self._rejected: dict[_Subject, Problem] = {}  # undecoded ones that were told of
        self._seen_rejected: dict[_Subject, Problem] = {}  # at the last look
        self._bucket = TokenBucket(EVENTS_AT_ONCE, EVENTS_PER_S, clock())
        self._backoff = Backoff(clock, jitter)
        self._paused_until = float("-inf")
        self._refused_until: dict[str, float] = {}
        self._last_in: dict[str, float] = {}  # when something was last written in a namespace
        self._look_at = float("-inf")
        self._said_at: dict[str, float] = {}
        self._stopping = False
        self._wake = threading.Event()
        self._thread: Kept | None = None
        self.report = EventsReport()

    # --- any thread -----------------------------------------------------------------------------------------------------------

    def tell(self, ref: Told, faults: Sequence[Fault]) -> None:
        """Everything that is wrong with an object at the moment; nothing: all is well.  Never blocks for long, never raises."""
        kind = _KINDS.get(ref.kind)
        subject = _Subject(kind, ObjectKey(ref.namespace, ref.name)) if kind is not None else None
        if subject is None or not is_named(subject.key):
            return  # a file, or what no API server has
        problems = tuple((bounded(str(fault.reason), 128), bounded(fault.message)) for fault in islice(faults, PROBLEMS_MAX))
        self._put(subject, problems)
        self._wake.set()

    def start(self, keeper: Keeper) -> None:
        self._thread = keeper.keep(self._run, name="atsk8s-events", purpose="events")

    def stop(self) -> None:
        """End it, whatever is still to be told."""
        self._stopping = True
        self._wake.set()
        with self._lock:
            writer = self._writer
        if writer is not None:
            writer.close()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _put(self, subject: _Subject, problems: tuple[Problem, ...]) -> None:
        with self._lock:
            if subject in self._standing or subject in self._inbox:
                self._inbox[subject] = problems
            elif problems:
                if len(self._inbox) >= OBJECTS_MAX:
                    self.report = replace(self.report, n_dropped=self.report.n_dropped + 1)
                else:
                    self._inbox[subject] = problems

    # --- the writer's thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            self._wake.wait(self.step())

    def step(self) -> float:
        """Take what was told, and write one Event at most; seconds until there may be more to do."""
        now = self._clock()
        self._look_for_rejections(now)
        self._take(now)
        wait_s = self._paused_until - now
        if wait_s <= 0:
            wait_s = self._bucket.wait_s(now)
        if wait_s > 0:
            return min(wait_s, IDLE_S)
        subject, problem, wait_s = self._next(now)
        if subject is None or problem is None:
            return wait_s
        self._bucket.take()
        self._standing[subject].bucket.take()
        self._last_in[subject.namespace] = now
        self._write(subject, problem, now)
        return 0.0

    def _look_for_rejections(self, now: float) -> None:
        """Objects that could not even be decoded reach no model, and nobody tells of them."""
        if now < self._look_at:
            return
        self._look_at = now + REJECTIONS_LOOK_S
        found: dict[_Subject, Problem] = {}
        for kind in KINDS:
            store = self._source.store(kind)
            if store.n_rejected > 0:
                for key, why in islice(store.rejected.items(), OBJECTS_MAX):
                    if is_named(key):
                        found[_Subject(kind, key, True)] = (str(why.reason), bounded(why.message))
        for subject, problem in found.items():
            if self._seen_rejected.get(subject) == problem != self._rejected.get(subject):
                self._rejected[subject] = problem
                self._put(subject, (problem,))
        for subject in self._rejected.keys() - found.keys():
            del self._rejected[subject]
            self._put(subject, ())
        self._seen_rejected = found

    def _take(self, now: float) -> None:
        with self._lock:
            told, self._inbox = self._inbox, {}
        for subject, problems in told.items():
            standing = self._standing.get(subject)
            if standing is None:
                if not problems:
                    continue
                if not self._has_room(subject, now):
                    self.report = replace(self.report, n_dropped=self.report.n_dropped + 1)
                    continue
                standing = self._standing[subject] = _Standing(TokenBucket(OBJECT_EVENTS_AT_ONCE, OBJECT_EVENTS_PER_S, now))
            known = standing.problems
            standing.problems = {problem: known.get(problem) or _Pending(now) for problem in problems}
            standing.gone_s = None if problems else now

    def _has_room(self, subject: _Subject, now: float) -> bool:
        """Room for one more object, made by forgetting those whose problems are over."""
        full_s = OBJECT_EVENTS_AT_ONCE / OBJECT_EVENTS_PER_S
        near = sum(known.namespace == subject.namespace for known in self._standing)
        if len(self._standing) >= OBJECTS_MAX or near >= NAMESPACE_OBJECTS_MAX:
            over = [known for known, standing in self._standing.items() if standing.gone_s is not None]
            over.sort(key=lambda known: self._standing[known].gone_s or 0.0)
            for known in over:
                is_full_again = now - (self._standing[known].gone_s or 0.0) >= full_s
                if is_full_again or len(self._standing) >= OBJECTS_MAX or known.namespace == subject.namespace:
                    near -= known.namespace == subject.namespace
                    del self._standing[known]
            namespaces = {known.namespace for known in self._standing}
            for memory in (self._last_in, self._refused_until):
                for namespace in memory.keys() - namespaces:
                    del memory[namespace]
        return len(self._standing) < OBJECTS_MAX and near < NAMESPACE_OBJECTS_MAX

    def _due(self, now: float) -> Iterator[tuple[float, _Subject, Problem]]:
        """Every problem and when it may be told of."""
        for subject, standing in self._standing.items():
            if standing.problems:
                least = max(now + standing.bucket.wait_s(now), self._refused_until.get(subject.namespace, now))
                for problem, pending in standing.problems.items():
                    yield max(pending.due_s, least), subject, problem

    def _next(self, now: float) -> tuple[_Subject | None, Problem | None, float]:
        """What to tell of now: the namespaces take turns, and in each what waits for longest comes first."""
        best: tuple[float, float, _Subject, Problem] | None = None
        wait_s = IDLE_S
        for due_s, subject, problem in self._due(now):
            if due_s > now:
                wait_s = min(wait_s, due_s - now)
                continue
            turn = (self._last_in.get(subject.namespace, float("-inf")), self._standing[subject].problems[problem].due_s)
            if best is None or turn < best[:2]:
                best = (*turn, subject, problem)
        return (best[2], best[3], 0.0) if best is not None else (None, None, wait_s)

    # --- one Event ------------------------------------------------------------------------------------------------------------

    def _write(self, subject: _Subject, problem: Problem, now: float) -> None:
        standing = self._standing[subject]
        pending = standing.problems[problem]
        # First of all: should this end the thread, then what ended it is not what the next one begins with.
        due_s, pending.due_s = pending.due_s, now + self._jitter(*REPEAT_S)
        try:
            is_new = self._tell_server(subject, problem, pending)
        except _NeedlessError:
            del standing.problems[problem]
            return
        except _RefusedError as error:
            pending.due_s = due_s
            self._refused_until[subject.namespace] = now + REFUSED_S
            self.report = replace(self.report, n_refused=self.report.n_refused + 1)
            self._say("events are refused", subject, f"{error}; grant create and patch on events (RBAC), or set --events=off")
            return
        except KubeError as error:
            pending.due_s = due_s
            if not self._stopping:
                self._paused_until = max(self._paused_until, now + self._backoff.next_s())
                self.report = replace(self.report, n_failed=self.report.n_failed + 1)
                self._say("events cannot be written", subject, str(error))
            return
        pending.is_there = True
        report = self.report
        if is_new:
            self.report = replace(report, n_written=report.n_written + 1)
        else:
            self.report = replace(report, n_repeated=report.n_repeated + 1)

    def _tell_server(self, subject: _Subject, problem: Problem, pending: _Pending) -> bool:
        """Create the Event or count it up; False: it was told of lately.

        Raises:
            KubeError: to be tried again.
            _RefusedError, _NeedlessError: see there.
        """
        uid = self._uid(subject)
        name = event_name(subject.key.name, uid, subject.kind.name, problem)
        collection = f"/api/v1/namespaces/{subject.namespace}/events"
        if not pending.is_there:
            made = self._send("POST", collection, _encode(self._event(subject, problem, name, uid)), fine=(409,))
            if made.status != 409:
                return True
        path = f"{collection}/{name}"
        found = self._send("PATCH", path, b"{}", content_type=_MERGE, fine=(404,))
        if found.status == 404:  # it has come of age
            made = self._send("POST", collection, _encode(self._event(subject, problem, name, uid)), fine=(409,))
            return made.status != 409
        stored = _decoded(found.body)
        if self._wall_clock() - unix_s(stored.last_timestamp) < RECENT_S:
            return False
        more = {
            "metadata": {"resourceVersion": stored.metadata.resource_version},
            "count": max(1, min(stored.count or 1, 2**31 - 2)) + 1,
            "lastTimestamp": self._timestamp(),
        }
        # 409: another replica was faster.
        return self._send("PATCH", path, _encode(more), content_type=_MERGE, fine=(409, 404)).status == 200

    def _event(self, subject: _Subject, problem: Problem, name: str, uid: str) -> Event:
        key, now = subject.key, self._timestamp()
        return Event(
            metadata=EventMeta(name=name, namespace=subject.namespace),
            involved_object=ObjectReference(
                api_version=subject.kind.api_version, kind=subject.kind.name, namespace=key.namespace, name=key.name, uid=uid
            ),
            reason=problem[0],
            message=problem[1],
            first_timestamp=now,
            last_timestamp=now,
            source=EventSource(component=COMPONENT),
            reporting_component=CONTROLLER,
        )

    def _uid(self, subject: _Subject) -> str:
        """The object's uid, "" of one that is not there; of one that could not be decoded the server is asked.

        Raises:
            _NeedlessError: that has gone.
            KubeError: no answer.
        """
        known = self._source.store(subject.kind).get(subject.key)
        if known is not None:
            uid: str = known.metadata.uid
            return uid
        if not subject.is_undecoded:
            return ""  # what an option names and is not there, or what has gone since
        path = f"{subject.kind.path(subject.key.namespace)}/{subject.key.name}"
        try:
            return _decoded(self._send("GET", path, accept=_METADATA).body).metadata.uid
        except _RefusedError:
            return ""  # `list` and `watch` without `get`: the Event is there, though `describe` does not find it

    def _send(
        self, method: str, path: str, body: bytes = b"", *, content_type: str = "", accept: str = "", fine: tuple[int, ...] = ()
    ) -> Reply:
        """An answer with a status of success, or one of `fine`."""
        if self._writer is None:
            writer = self._connect()
            with self._lock:
                self._writer = writer
        if self._stopping:
            raise KubeError("stopped")
        reply = self._writer.send(method, path, body, content_type=content_type, accept=accept)
        if reply.status in fine or 200 <= reply.status < 300:
            return reply
        status = decode_status(reply.body)
        said = f"{method} {path.split('?')[0].rpartition('/')[0]}: {reply.status} {bounded(status.message, 200)}"
        causes = [cause.reason for cause in status.details.causes] if status.details is not None else []
        match reply.status:
            case 401:
                self._writer.unauthorized()
            case 403 if "NamespaceTerminating" not in causes:
                raise _RefusedError(said)
            case 403 | 404:
                raise _NeedlessError
            case 400 | 409 | 413 | 415 | 422:  # what was asked is wrong, now and for ever
                self.report = replace(self.report, n_failed=self.report.n_failed + 1)
                self._say("an event was not taken", None, said)
                raise _NeedlessError
            case _:
                pass
        if reply.retry_after_s is not None:
            self._paused_until = self._clock() + min(reply.retry_after_s, RETRY_AFTER_MAX_S)
        raise KubeError(said)

    def _say(self, text: str, subject: _Subject | None, why: str) -> None:
        """A log line, unless the same was said lately.  Not a warning: what there is to warn of has its own line already."""
        now = self._clock()
        if now - self._said_at.get(text, float("-inf")) >= LOG_EVERY_S:
            self._said_at[text] = now
            _log.info(text, extra={"namespace": subject.namespace if subject is not None else "", "why": why})

    def _timestamp(self) -> str:
        return datetime.fromtimestamp(self._wall_clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _decoded(body: bytes) -> Stored:
    try:
        return _stored.decode(body)
    except UNDECODABLE:
        raise KubeError("the answer is no object") from None
