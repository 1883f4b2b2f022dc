"""Names, types, labels and help of every metric: one table, which the exposition and docs/metrics.md are made from.

The first block is counted in C (plugin_c/controller/stats.h; a lint test holds the two equal), the rest is read from the
controller when somebody asks.  Units are in the names: seconds, bytes, total.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, Protocol


@unique
class MetricType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric family.  `labels` in the order in which samples give their values."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()


COUNTED_IN_C: Final[tuple[Metric, ...]] = (
    Metric(name="atsk8s_requests_total", type=MetricType.COUNTER, help="Requests by what became of them", labels=("result",)),
    Metric(
        name="atsk8s_limited_total",
        type=MetricType.COUNTER,
        help="Requests answered 429, by the limit that they were over",
        labels=("result",),
    ),
    Metric(
        name="atsk8s_limits_uncounted_total",
        type=MetricType.COUNTER,
        help="Requests that passed a limit uncounted: its table was full",
    ),
    Metric(
        name="atsk8s_bodies_cut_total",
        type=MetricType.COUNTER,
        help="Bodies without a length that were cut when they had become too large",
    ),
    Metric(
        name="atsk8s_headers_cut_total",
        type=MetricType.COUNTER,
        help="Connections cut: the request's header dripped for too long",
    ),
    Metric(
        name="atsk8s_requests_cut_total",
        type=MetricType.COUNTER,
        help="Requests cut by request-timeout, as they dripped",
    ),
    Metric(
        name="atsk8s_endpoint_failures_total",
        type=MetricType.COUNTER,
        help="Attempts at an endpoint that failed",
        labels=("result",),
    ),
    Metric(
        name="atsk8s_endpoint_health_changes_total",
        type=MetricType.COUNTER,
        help="Endpoints left out of picks, or taken in again",
        labels=("result",),
    ),
    Metric(name="atsk8s_retries_total", type=MetricType.COUNTER, help="Attempts at another endpoint within one request"),
    Metric(
        name="atsk8s_retries_refused_total",
        type=MetricType.COUNTER,
        help="Attempts not made: over budget or time",
        labels=("result",),
    ),
    Metric(
        name="atsk8s_affinity_total",
        type=MetricType.COUNTER,
        help="Requests with cookie affinity",
        labels=("result",),
    ),
    Metric(
        name="atsk8s_snippets_total",
        type=MetricType.COUNTER,
        help="Runs of Ingresses' snippets, by what came of them",
        labels=("result",),
    ),
    Metric(
        name="atsk8s_snippet_lines_dropped_total",
        type=MetricType.COUNTER,
        help="Log lines of snippets that were too many",
    ),
    Metric(
        name="atsk8s_tls_handshakes_total",
        type=MetricType.COUNTER,
        help="TLS handshakes by where their certificate came from",
        labels=("result",),
    ),
)

INFO: Final = Metric(name="atsk8s_info", type=MetricType.GAUGE, help="1; the version as a label", labels=("version",))
READY: Final = Metric(name="atsk8s_ready", type=MetricType.GAUGE, help="1 if requests are answered from a table")
DEGRADED: Final = Metric(
    name="atsk8s_degraded", type=MetricType.GAUGE, help="1 while the last good state of --state-dir is served instead of live data"
)
STATE_AGE: Final = Metric(
    name="atsk8s_state_age_seconds", type=MetricType.GAUGE, help="Age of the last good state that is served; 0 with live data [s]"
)
STATE_SAVES: Final = Metric(
    name="atsk8s_state_saves_total",
    type=MetricType.COUNTER,
    help="Writes of the last good state: saved, failed",
    labels=("result",),
)
STATE_SIZE: Final = Metric(
    name="atsk8s_state_size_bytes", type=MetricType.GAUGE, help="The last good state as last written [bytes]"
)
STATE_SAVE_LAST_SECONDS: Final = Metric(
    name="atsk8s_state_save_last_seconds", type=MetricType.GAUGE, help="What the last write of the last good state took [s]"
)
TABLE_VERSION: Final = Metric(name="atsk8s_table_version", type=MetricType.GAUGE, help="The published table; 0 before the first")
COMMITS: Final = Metric(
    name="atsk8s_commits_total",
    type=MetricType.COUNTER,
    help="Commits: published, unchanged, failed",
    labels=("result",),
)
COMMIT_SECONDS: Final = Metric(
    name="atsk8s_commit_seconds_total", type=MetricType.COUNTER, help="Time spent on assembling, encoding and publishing [s]"
)
COMMIT_LAST_SECONDS: Final = Metric(name="atsk8s_commit_last_seconds", type=MetricType.GAUGE, help="Cost of the last commit [s]")
TABLE_OBJECTS: Final = Metric(
    name="atsk8s_table_objects",
    type=MetricType.GAUGE,
    help="What the published table holds: virtual_hosts, tls_policies, services, certificates",
    labels=("what",),
)
OBJECTS: Final = Metric(name="atsk8s_objects", type=MetricType.GAUGE, help="Kubernetes objects in the stores", labels=("kind",))
REJECTED: Final = Metric(
    name="atsk8s_rejected_objects",
    type=MetricType.GAUGE,
    help="Objects with at least one condition against them",
    labels=("kind", "reason"),
)
KIND_SYNCED: Final = Metric(
    name="atsk8s_kind_synced", type=MetricType.GAUGE, help="1 once a kind's first full list is in", labels=("kind",)
)
KIND_AGE: Final = Metric(
    name="atsk8s_kind_age_seconds", type=MetricType.GAUGE, help="Since the source last spoke of this kind [s]", labels=("kind",)
)
RELISTS: Final = Metric(name="atsk8s_relists_total", type=MetricType.COUNTER, help="Full lists taken in", labels=("kind",))
EVENTS: Final = Metric(name="atsk8s_watch_events_total", type=MetricType.COUNTER, help="Watch events taken in", labels=("kind",))
API_REQUESTS: Final = Metric(
    name="atsk8s_api_requests_total", type=MetricType.COUNTER, help="Requests to the API server", labels=("kind",)
)
CONTROLLER_ERRORS: Final = Metric(
    name="atsk8s_controller_errors_total", type=MetricType.COUNTER, help="Bugs that cost a commit; the published table stayed"
)
THREAD_RESTARTS: Final = Metric(
    name="atsk8s_thread_restarts_total",
    type=MetricType.COUNTER,
    help="Threads that ended before their time, and were started again: controller, watch, admin, saver, probes, events",
    labels=("thread",),
)
ENDPOINTS_EJECTED: Final = Metric(
    name="atsk8s_endpoints_ejected",
    type=MetricType.GAUGE,
    help="Endpoints of a Service's port that are left out just now, after failures or by checks; of 100 Services that have any",
    labels=("namespace", "service", "port"),
)
SERVICES_EJECTING: Final = Metric(
    name="atsk8s_services_with_ejected_endpoints",
    type=MetricType.GAUGE,
    help="Services' ports of which at least one endpoint is left out just now",
)
PROBES: Final = Metric(
    name="atsk8s_probes_total",
    type=MetricType.COUNTER,
    help="Active health checks by what they found: healthy, unhealthy, unknown (it could not be asked)",
    labels=("result",),
)
PROBES_LATE: Final = Metric(
    name="atsk8s_probes_late_total",
    type=MetricType.COUNTER,
    help="Active health checks begun more than their interval late: there are more endpoints than can be asked that often",
)
PROBED_ENDPOINTS: Final = Metric(
    name="atsk8s_probed_endpoints", type=MetricType.GAUGE, help="Endpoints that are checked actively (health-check-path)"
)
CONTROLLER_AGE: Final = Metric(
    name="atsk8s_controller_heartbeat_age_seconds", type=MetricType.GAUGE, help="Since the controller last went round its loop [s]"
)
KUBERNETES_EVENTS: Final = Metric(
    name="atsk8s_kubernetes_events_total",
    type=MetricType.COUNTER,
    help="Events about objects: written; repeated (told of lately); refused (403), failed; dropped: too many objects have problems",
    labels=("result",),
)
CERTIFICATE_EXPIRY: Final = Metric(
    name="atsk8s_certificate_not_after_seconds",
    type=MetricType.GAUGE,
    help="When a certificate in use ends [Unix time, s]",
    labels=("namespace", "secret"),
)

READ_FROM_CONTROLLER: Final[tuple[Metric, ...]] = (
    INFO,
    READY,
    DEGRADED,
    STATE_AGE,
    STATE_SAVES,
    STATE_SIZE,
    STATE_SAVE_LAST_SECONDS,
    TABLE_VERSION,
    COMMITS,
    COMMIT_SECONDS,
    COMMIT_LAST_SECONDS,
    TABLE_OBJECTS,
    OBJECTS,
    REJECTED,
    KIND_SYNCED,
    KIND_AGE,
    RELISTS,
    EVENTS,
    API_REQUESTS,
    CONTROLLER_ERRORS,
    THREAD_RESTARTS,
    ENDPOINTS_EJECTED,
    SERVICES_EJECTING,
    PROBES,
    PROBES_LATE,
    PROBED_ENDPOINTS,
    CONTROLLER_AGE,
    KUBERNETES_EVENTS,
    CERTIFICATE_EXPIRY,
)


class Counters(Protocol):
    """Who counts what is counted in C (bridge/core.py)."""

    def counters(self) -> Iterable[tuple[str, str, int]]:
        """(metric name, label value or "", count)."""
        ...


class Saves(Protocol):
    """What the writer of the last good state has done so far (bridge/saver.py)."""

    @property
    def n_saved(self) -> int: ...
    @property
    def n_failed(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def last_s(self) -> float: ...


class EventCounts(Protocol):
    """What the writer of Kubernetes Events has done so far (source/kube/events.py)."""

    @property
    def n_written(self) -> int: ...
    @property
    def n_repeated(self) -> int: ...
    @property
    def n_refused(self) -> int: ...
    @property
    def n_failed(self) -> int: ...
    @property
    def n_dropped(self) -> int: ...


def metrics_table(metrics: Iterable[Metric] = (*COUNTED_IN_C, *READ_FROM_CONTROLLER)) -> str:
    """The table of docs/metrics.md, as Markdown."""
    rows = ["| metric | type | labels | what it says |", "|---|---|---|---|"]
    rows += [f"| `{m.name}` | {m.type} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |" for m in metrics]
    return "\n".join(rows) + "\n"
