"""The controller: wait for sync, take what is dirty, assemble, commit, report; until told to stop.

It runs on one thread, and is the only one to change the table.  A source's threads note what is dirty and wake it; nothing is
queued per event and there is no timer: a change is committed at once, and what arrives meanwhile is taken together in the next
round.  Whatever fails here costs freshness and never traffic: the commit at hand is dropped, the published table stays, and the
next round rebuilds everything from the stores.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from atsk8s.api.meta import ObjectKey
from atsk8s.cluster_settings.state import ClusterSettings
from atsk8s.errors import InvariantError, KubeError, Reason
from atsk8s.liveness import WallClock, liveness_faults
from atsk8s.metrics import EventCounts
from atsk8s.model.changes import Changes
from atsk8s.model.ir import Condition, ObjectRef
from atsk8s.model.state import Model
from atsk8s.probes.prober import Prober
from atsk8s.probes.rounds import EndpointHealth, HealthTable
from atsk8s.route_hold import RouteHold
from atsk8s.settings import Settings
from atsk8s.source.interface import KindStatus, Source, is_synced
from atsk8s.source.kinds import CONFIG_MAP, INGRESS_CLASS, KINDS, AnyKind
from atsk8s.source.store import Change
from atsk8s.threads import Keeper

_log = logging.getLogger(__name__)

START_RETRY_S: Final = 5.0  # between attempts at a source that cannot work as configured
UNSYNCED_ROUND_S: Final = 0.01  # how often it is looked whether the first lists are in: a start waits for no timer longer than this
VERDICT_REST_S: Final = 1.0  # how long a condition must stand before it is worth a log line
IDLE_ROUND_S: Final = 1.0  # how often an idle controller goes round, for its heartbeat and for certificates that expire
_LOAD_ORDER: Final = (INGRESS_CLASS, *(kind for kind in KINDS if kind is not INGRESS_CLASS))  # else it has its Ingresses read twice
LOGGED_VERDICTS_MAX: Final = 20  # lines one round may log about objects; the rest is counted, and stands in /conditions
REBUILD_BACKOFF_S: Final = (0.1, 0.5, 2.0, 10.0)  # after the first, second, ... failed commit in a row


class Table(HealthTable, Protocol):
    """Where commits go (bridge/publish.py): all of `changes` or, with an exception, nothing."""

    def commit(self, changes: Changes) -> int | None:
        """The published version, or None if what is published is equal already.

        Raises:
            InvariantError: the core refused what we made.
        """
        ...

    def version(self) -> int:
        """Of the published table, if it is one of ours; else 0.  Right also after a `commit` that was ended in its midst."""
        ...

    def refusals(self) -> Sequence[Condition]:
        """What was not taken though the model thought it right; what was published before stays in use."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """How many virtual_hosts, tls_policies, services and certificates are published."""
        ...


class EventSink(Protocol):
    """Who tells an object's author what is wrong with it (source/kube/events.py)."""

    def tell(self, ref: ObjectRef, faults: Sequence[Condition]) -> None:
        """Everything that is wrong with an object at the moment; nothing: all is well again.  Never blocks, never raises."""
        ...

    @property
    def report(self) -> EventCounts: ...


class Bell(Protocol):
    """How the controller sleeps.  In the plugin both are calls into C, which also end at shutdown."""

    def wait(self, timeout_s: float) -> bool:
        """Sleep until `ring` or the time; True when it is time to stop."""
        ...

    def ring(self) -> None:
        """End the sleep, or the next one.  Any thread; never blocks."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedState:
    """The last good state, which the start has published before there was a controller."""

    version: int  # of its table here
    written_s: int  # Unix time


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The controller's state at one moment: what health and metrics read.  A value: never changed once handed out."""

    version: int = 0  # of the published table; 0: none yet
    ready: bool = False
    reason: str = "starting"
    degraded_s: float | None = None  # age of the last good state that is served instead of live data; None: live, or nothing
    n_published: int = 0
    n_unchanged: int = 0
    n_failed: int = 0
    commit_total_s: float = 0.0
    commit_last_s: float = 0.0
    heartbeat_s: float = 0.0  # the clock at the last round
    sizes: Mapping[str, int] = field(default_factory=dict)


class Controller:
    """See the module.  `run` is for the controller's own thread; every other method may be called from any thread."""

    def __init__(
        self,
        *,
        settings: Settings,
        source: Source,
        model: Model,
        table: Table,
        bell: Bell,
        on_first_table: Callable[[], None],
        on_health: Callable[[bool, str], None],
        on_unusable: Callable[[str], None] = lambda _: None,
        on_settled: Callable[[], None] = lambda: None,
        events: EventSink | None = None,
        cluster_settings: ClusterSettings | None = None,
        is_draining: Callable[[], bool] = lambda: False,
        keeper: Keeper | None = None,
        prober: Prober | None = None,
        loaded: LoadedState | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._source = source
        self._model = model
        self._table = table
        self._bell = bell
        self._on_first_table = on_first_table
        self._on_health = on_health
        self._on_unusable = on_unusable
        self._on_settled = on_settled
        self._is_settled = False
        self._is_draining = is_draining
        self._keeper = keeper or Keeper(clock)
        self._wall = WallClock(wall_clock)
        self.endpoint_health = EndpointHealth(table, prober or Prober(bell.ring, clock=clock, keeper=self._keeper), clock)
        self._clock = clock
        self._wall_clock = wall_clock
        # A dict and not a set of events: a key that changes a thousand times while we work is taken once.  The lock is held for a
        # dict operation, by the source's threads and by us.
        self._dirty: dict[tuple[AnyKind, ObjectKey], None] = {}
        self._dirty_lock = threading.Lock()
        self._is_unread = True  # nothing was taken from the stores yet: the first round takes all there is
        self._rebuild = True
        self._failures_in_a_row = 0
        self._n_lost = 0
        self._hold = RouteHold(clock)
        self._cluster_settings = cluster_settings or ClusterSettings(settings, None)
        self._events = events
        self._verdict_log = VerdictLog(clock, events)
        self._loaded = loaded  # None: there was none, or live data has taken over
        self._is_live = False  # a table of ours is published
        self._has_run = False  # `run` was called before, and was ended by what no handler foresees
        self._report = Report(heartbeat_s=clock(), version=loaded.version if loaded else 0, ready=loaded is not None)
        self._model_lock = threading.Lock()  # the model is ours; explain and dump borrow it between rounds

    # --- for other threads ----------------------------------------------------------------------------------------------------

    @property
    def report(self) -> Report:
        report, loaded = self._report, self._loaded
        return replace(report, degraded_s=max(0.0, self._wall_clock() - loaded.written_s)) if loaded else report

    def live_version(self) -> int:
        """Version of the published table; 0 while it is not one of ours."""
        return self._report.version if self._is_live else 0

    def heartbeat_age_s(self) -> float:
        """Seconds since the controller last went round; more than a few says that it hangs."""
        return max(0.0, self._clock() - self._report.heartbeat_s)

    def liveness_faults(self) -> list[str]:
        """Why the process would be better started again, besides a heartbeat that is missing; see liveness.py."""
        return liveness_faults(self._source.kinds(), self._keeper.failing(), self._wall.back_s())

    def thread_restarts(self) -> Mapping[str, int]:
        """How often a thread was started again, by what it is for."""
        return self._keeper.restarts.counts()

    def kinds(self) -> tuple[KindStatus, ...]:
        return self._source.kinds()

    def event_counts(self) -> EventCounts | None:
        """What became of Kubernetes Events so far; None: there are none."""
        return self._events.report if self._events is not None else None

    def conditions(self) -> tuple[Condition, ...]:
        """Everything that is wrong with any object, sorted: what the model found, and what could not even be decoded."""
        with self._model_lock:
            found = [*self._model.conditions(), *self._table.refusals(), *self._cluster_settings.conditions()]
        for kind in KINDS:
            for key, rejection in self._source.store(kind).rejected.items():
                ref = ObjectRef(kind=kind.name, namespace=key.namespace, name=key.name)
                found.append(_rejected(ref, rejection.origin, rejection.reason, rejection.message))
        told = {condition.object for condition in found if condition.fatal}
        for problem in self._source.problems():
            key = problem.key or ObjectKey("", problem.origin)
            ref = ObjectRef(kind=problem.kind or "File", namespace=key.namespace, name=key.name)
            if ref not in told:  # most of those with a key are in their store's rejections, too
                found.append(_rejected(ref, problem.origin if problem.key else "", problem.reason, problem.message))
        return tuple(sorted(found))

    def inspect(self, look: Callable[[Model], Any]) -> Any:
        """What `look` returns of the model, which stands still meanwhile.  Keep it short: commits wait."""
        with self._model_lock:
            return look(self._model)

    # --- the source's threads -------------------------------------------------------------------------------------------------

    def _on_change(self, kind: AnyKind, changes: Sequence[Change[Any]], /) -> None:
        with self._dirty_lock:
            if not self._is_unread:
                for change in changes:
                    self._dirty[kind, change.key] = None
        self._bell.ring()

    # --- the controller's thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until the bell says stop.

        If something that no handler foresees ends it, it may be called again: the source has gone on, what is published stays, and
        everything is made anew from the stores.
        """
        if self._has_run:
            self._pick_up()
        else:
            self._has_run = True
            self._source.subscribe(self._on_change)
        self._run()
        self._keeper.close()
        self.endpoint_health.stop()
        self._source.stop()

    def _run(self) -> None:
        if not self._start_source():
            return
        if not self._is_live:
            # Loading makes much and drops little: the collector would only go over it again and again, up to a second each time.
            gc.disable()
        while not is_synced(kinds := self._source.kinds()):
            self._say_not_live(_unsynced(kinds))
            if self._go_to_sleep(UNSYNCED_ROUND_S):
                return
        while True:
            self._round()
            self.endpoint_health.round()
            if self._go_to_sleep(self._sleep_s()):
                return

    def _pick_up(self) -> None:
        """Go on from wherever the last `run` was ended."""
        self._rebuild = True
        version = self._table.version()
        if version and (not self._is_live or version != self._report.version):
            self._report = replace(self._report, version=version, sizes=dict(self._table.sizes()))
            self._first_table(version)  # or what of it was not done; it does no harm to do it again

    def _start_source(self) -> bool:
        """Start the source, trying again for as long as it cannot work as configured: somebody may mend the file that is at
        fault.  False when it is time to stop."""
        while True:
            try:
                self._source.start()
            except KubeError as error:
                if str(error) != self._report.reason:
                    self._say_not_live(str(error))
                    self._on_unusable(str(error))
                if self._go_to_sleep(START_RETRY_S):
                    return False
            else:
                return True

    def _go_to_sleep(self, timeout_s: float) -> bool:
        stop = self._bell.wait(timeout_s)
        self._keeper.tend()
        self._wall.look()
        self._report = replace(self._report, heartbeat_s=self._clock())
        if self._report.ready and self._is_draining():
            # Traffic goes on until the end of the drain; whoever balances over us must stop sending new connections first.
            self._say_health(ready=False, reason="draining: the server is about to stop")
        return stop

    def _sleep_s(self) -> float:
        if self._failures_in_a_row:
            return REBUILD_BACKOFF_S[min(self._failures_in_a_row, len(REBUILD_BACKOFF_S)) - 1]
        return min(IDLE_ROUND_S, self._hold.due_in_s())

    def _round(self) -> None:
        """One commit, if there is anything to commit.  The one place that catches what nobody foresaw."""
        started = self._clock()
        try:
            version = self._commit()
        except Exception as error:
            self._failures_in_a_row += 1
            self._rebuild = True
            self._report = replace(self._report, n_failed=self._report.n_failed + 1)
            _log.exception("commit dropped; the published table stays", extra={"error": type(error).__name__})
            return
        self._failures_in_a_row = 0
        spent = self._clock() - started
        report = self._report
        if version is None:
            if self._is_live and not self._is_settled:  # loaded, and nothing to do: what loading has left behind can go
                self._is_settled = True
                self._on_settled()
            return
        self._report = replace(
            report,
            version=version,
            n_published=report.n_published + 1,
            commit_total_s=report.commit_total_s + spent,
            commit_last_s=spent,
            sizes=dict(self._table.sizes()),
        )
        if not self._is_live:
            self._first_table(version)
        _log.debug("table published", extra={"version": version, "cost_ms": round(spent * 1e3, 3)})

    def _first_table(self, version: int) -> None:
        if self._loaded is not None:
            _log.info("live data has taken over from the last good state", extra={"age_s": round(self.report.degraded_s or 0.0)})
        self._loaded = None
        self._say_health(ready=True, reason="")
        self._on_first_table()
        # What is loaded now stays for long: out of the collector's sight.  From here on it runs rarely, on what is young.
        gc.freeze()
        gc.set_threshold(20_000, 50, 1000)
        gc.enable()
        self._is_live = True
        _log.info("serving", extra={"version": version, **self._report.sizes})

    def _commit(self) -> int | None:
        with self._dirty_lock:
            dirty, self._dirty = self._dirty, {}
            self._is_unread = False
        n_lost = sum(self._source.store(kind).n_listener_errors for kind in KINDS)
        if n_lost != self._n_lost:  # a change was not noted: which one is unknown
            self._n_lost, self._rebuild = n_lost, True
        now = self._wall_clock()
        with self._model_lock:
            if self._rebuild:
                self._load_all()  # and with it what is dirty: a key is noted after its store shows the change
            else:
                for kind, key in dirty:
                    self._put(kind, key, self._source.store(kind).get(key))
            self._verdict_log.note(self._cluster_settings.apply())
            self._model.set_grants(self._cluster_settings.grants)
            self._model.set_host_certificates(self._cluster_settings.certificates)
            changes = self._model.drain(now_s=int(now))
            self._verdict_log.tell(self._verdict)
            changes = self._hold.apply(changes, self._model.is_seen) if self._is_live else changes
        version = self._table.commit(changes)
        self.endpoint_health.take(changes.services)
        self._verdict_log.note(changes.verdicts)
        if self._rebuild:
            self._rebuild = False
            # A first table may be empty, and is a right answer all the same.
            if version is None and not self._is_live:
                raise InvariantError("the first commit published nothing")
        if version is None and dirty:
            self._report = replace(self._report, n_unchanged=self._report.n_unchanged + 1)
        return version

    def _load_all(self) -> None:
        """Everything anew from the stores: at the start, and after a commit that failed."""
        self._model.reset()
        self._cluster_settings.reset()
        self._hold.reset()
        for kind in _LOAD_ORDER:
            for key, obj in self._source.store(kind).snapshot().items():
                self._put(kind, key, obj)

    def _put(self, kind: AnyKind, key: ObjectKey, obj: Any) -> None:
        if kind is CONFIG_MAP:
            self._cluster_settings.put(key, obj)
        else:
            self._model.put(kind, key, obj)

    def _verdict(self, ref: ObjectRef) -> tuple[Condition, ...]:
        return self._cluster_settings.verdict(ref) if ref.kind == CONFIG_MAP.name else self._model.verdict(ref)

    def _say_not_live(self, reason: str) -> None:
        """Nothing of ours is published, for this reason; a last good state counts as ready all the same, and for ever."""
        if self._loaded is None:
            self._say_health(ready=False, reason=reason)
        elif not self._is_draining():
            self._say_health(ready=True, reason=reason)

    def _say_health(self, *, ready: bool, reason: str) -> None:
        if (ready, reason) != (self._report.ready, self._report.reason):
            self._report = replace(self._report, ready=ready, reason=reason)
            self._on_health(ready, reason)
            if not ready:
                _log.info("not ready", extra={"reason": reason})


class VerdictLog:
    """Logs what is wrong with an object, so that its author finds it in the log, once it has stood for a while: kinds arrive in no
    order, and a Service that comes a moment after its Ingress is nobody's fault."""

    def __init__(self, clock: Callable[[], float], events: EventSink | None = None) -> None:
        self._clock = clock
        self._events = events
        self._due: dict[ObjectRef, float] = {}  # in order of time
        self._told: dict[ObjectRef, tuple[Condition, ...]] = {}

    def note(self, refs: Sequence[ObjectRef]) -> None:
        """The verdicts of these objects may have changed."""
        due = self._clock() + VERDICT_REST_S
        for ref in refs:
            self._due.setdefault(ref, due)

    def tell(self, verdict: Callable[[ObjectRef], tuple[Condition, ...]]) -> None:
        """Log what has rested for long enough and differs from what was logged before."""
        now = self._clock()
        n_lines = 0
        while self._due and next(iter(self._due.values())) <= now:
            ref = next(iter(self._due))
            del self._due[ref]
            conditions = verdict(ref)
            told = self._told.get(ref, ())
            new = [condition for condition in conditions if condition not in told]
            if self._events is not None and conditions != told:
                self._events.tell(ref, conditions)
            if conditions:
                self._told[ref] = conditions
            else:
                self._told.pop(ref, None)
            for condition in new:
                n_lines += 1
                if n_lines <= LOGGED_VERDICTS_MAX:
                    extra = {"object": str(ref), "reason": str(condition.reason), "why": condition.message}
                    _log.warning("rejected" if condition.fatal else "accepted with conditions", extra=extra)
        if n_lines > LOGGED_VERDICTS_MAX:
            _log.warning("more conditions, see /conditions of --admin", extra={"n_more": n_lines - LOGGED_VERDICTS_MAX})


def _rejected(ref: ObjectRef, origin: str, reason: Reason, message: str) -> Condition:
    return Condition(object=ref, reason=reason, message=f"{origin}: {message}" if origin else message, fatal=True)


def _unsynced(kinds: Sequence[KindStatus]) -> str:
    waiting = [f"{k.name}: {k.reason or 'first list not in yet'}" for k in kinds if not (k.synced if k.mandatory else k.settled)]
    return "waiting for " + "; ".join(waiting) if waiting else "assembling the first table"


def reason_counts(conditions: Sequence[Condition]) -> Mapping[tuple[str, Reason | str], int]:
    """How many objects of each kind have a condition, by reason: what the metric shows."""
    objects: dict[tuple[str, str], set[ObjectRef]] = {}
    for condition in conditions:
        objects.setdefault((condition.object.kind, condition.reason), set()).add(condition.object)
    return {key: len(refs) for key, refs in objects.items()}
