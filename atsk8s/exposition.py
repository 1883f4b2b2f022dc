"""Metrics in the Prometheus text format, read from the controller and the core when somebody asks; nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from atsk8s import __version__, metrics
from atsk8s.controller import Controller, reason_counts
from atsk8s.metrics import Counters, Saves

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


def exposition(controller: Controller, counters: Counters, saves: Callable[[], Saves] | None) -> bytes:
    """Every metric of `metrics`, as they stand now."""
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(_Collector(controller, counters, saves))
    return generate_latest(collectors)


class _Collector:
    """Reads the metrics when somebody asks; nothing is counted twice."""

    def __init__(self, controller: Controller, counters: Counters, saves: Callable[[], Saves] | None) -> None:
        self._controller = controller
        self._counters = counters
        self._saves = saves

    def collect(self) -> Iterable[Family]:
        counted = {m.name: CounterMetricFamily(m.name, m.help, labels=m.labels) for m in metrics.COUNTED_IN_C}
        for name, label, count in self._counters.counters():
            counted[name].add_metric([label] if label else [], count)
        yield from counted.values()
        report = self._controller.report
        yield _family(metrics.INFO, [([__version__], 1)])
        yield _family(metrics.READY, [([], int(report.ready))])
        yield _family(metrics.DEGRADED, [([], int(report.degraded_s is not None))])
        yield _family(metrics.STATE_AGE, [([], report.degraded_s or 0.0)])
        if self._saves is not None:
            saves = self._saves()
            yield _family(metrics.STATE_SAVES, [(["saved"], saves.n_saved), (["failed"], saves.n_failed)])
            yield _family(metrics.STATE_SIZE, [([], saves.size_bytes)])
            yield _family(metrics.STATE_SAVE_LAST_SECONDS, [([], saves.last_s)])
        yield _family(metrics.TABLE_VERSION, [([], report.version)])
        commits = (("published", report.n_published), ("unchanged", report.n_unchanged), ("failed", report.n_failed))
        yield _family(metrics.COMMITS, [([name], n) for name, n in commits])
        yield _family(metrics.COMMIT_SECONDS, [([], report.commit_total_s)])
        yield _family(metrics.COMMIT_LAST_SECONDS, [([], report.commit_last_s)])
        yield _family(metrics.TABLE_OBJECTS, [([what], n) for what, n in sorted(report.sizes.items())])
        yield from self._kinds()
        rejected = reason_counts(self._controller.conditions())
        yield _family(metrics.REJECTED, [([kind, reason], n) for (kind, reason), n in sorted(rejected.items())])
        yield _family(metrics.CONTROLLER_ERRORS, [([], report.n_failed)])
        yield _family(metrics.THREAD_RESTARTS, [([what], n) for what, n in sorted(self._controller.thread_restarts().items())])
        yield from self._endpoints()
        yield _family(metrics.CONTROLLER_AGE, [([], self._controller.heartbeat_age_s())])
        events = self._controller.event_counts()
        results = ("written", "repeated", "refused", "failed", "dropped") if events is not None else ()
        yield _family(metrics.KUBERNETES_EVENTS, [([result], getattr(events, f"n_{result}")) for result in results])
        expiry = self._controller.inspect(lambda model: tuple(model.certificate_expiry()))
        yield _family(metrics.CERTIFICATE_EXPIRY, [([key.namespace, key.name], when) for key, when in expiry])

    def _endpoints(self) -> Iterable[Family]:
        health = self._controller.endpoint_health
        ejected, probes = health.ejected, health.probes
        rows = [([e.service.namespace, e.service.name, str(e.service.port)], e.n_ejected) for e in ejected.first]
        yield _family(metrics.ENDPOINTS_EJECTED, rows)
        yield _family(metrics.SERVICES_EJECTING, [([], ejected.n_services)])
        found = (("healthy", probes.n_healthy), ("unhealthy", probes.n_unhealthy), ("unknown", probes.n_unknown))
        yield _family(metrics.PROBES, [([result], n) for result, n in found])
        yield _family(metrics.PROBES_LATE, [([], probes.n_late)])
        yield _family(metrics.PROBED_ENDPOINTS, [([], probes.n_targets)])

    def _kinds(self) -> Iterable[Family]:
        kinds = self._controller.kinds()
        yield _family(metrics.OBJECTS, [([k.name], k.n_objects) for k in kinds])
        yield _family(metrics.KIND_SYNCED, [([k.name], int(k.synced)) for k in kinds])
        yield _family(metrics.KIND_AGE, [([k.name], k.staleness_s) for k in kinds])
        yield _family(metrics.RELISTS, [([k.name], k.n_relists) for k in kinds])
        yield _family(metrics.EVENTS, [([k.name], k.n_events) for k in kinds])
        yield _family(metrics.API_REQUESTS, [([k.name], k.n_requests) for k in kinds])


def _family(metric: metrics.Metric, samples: Iterable[tuple[list[str], float]]) -> Family:
    make: Callable[..., Any] = CounterMetricFamily if metric.type is metrics.MetricType.COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family  # type: ignore[no-any-return]
