"""A hundred rolling updates of ten pods under constant load: the complaint that makes people leave their ingress, as a figure."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.cluster import pod_name
from tests.faults.report import FaultFactory
from tests.faults.site import App, Site, took_s
from tests.harness import processes
from tests.harness.kubeapi import JsonObject
from tests.harness.load import Request
from tests.harness.patience import stretched

GROUP = "Rolling updates"
N_PODS, N_UPDATES, WAVE = 10, 100, 5
GENERATIONS = 30  # of addresses; then those of the first, long gone, are used again, as a cluster does
ACCEPT_S = 1.0  # how long a pod still takes requests once the API server says that it goes
SUBNET = 100
CONTROLLERS_S = 60.0  # a kube-controller-manager that starts, on a busy machine
NODE = "node-1"

pytestmark = pytest.mark.timeout(900)


def ips_of(generation: int, *, subnet: int = SUBNET) -> list[str]:
    """The pods of one generation; `subnet` is the third byte of the first one's addresses."""
    return [f"10.244.{subnet + generation % GENERATIONS}.{n}" for n in range(1, N_PODS + 1)]


class Deployment:
    """What a Deployment, its kubelets and its pods do, at the API and on the network.

    Pods go when EndpointSlices at the API server say that others are ready (a Deployment's minReadySeconds), and serve until
    those say that they go, and ACCEPT_S more (a preStop).  How late their controller says so is no proxy's doing: it tries again
    after a second where its own cache lags, and writes one slice after the other.  Where pods do not wait, none is ready for a
    moment, and of those that are said to drain some have ended.
    """

    def __init__(self, site: Site, name: str, *, subnet: int = SUBNET) -> None:
        self.site, self.name, self._subnet = site, name, subnet
        self.generations = itertools.count(1)
        self.current = ips_of(0, subnet=subnet)
        self._stamps = itertools.count(1)
        self._ending: set[str] = set()  # terminating pods
        self.told_s: list[float] = []  # from a wave's creation or deletion until EndpointSlices said so
        self._workers = ThreadPoolExecutor(WAVE)

    def await_controllers(self) -> float:
        """Wait until EndpointSlices follow; return the seconds that took.

        What rolls pods is a controller beside the one of EndpointSlices, in one process: while that is away, nothing is rolled.
        """
        cluster, stamp = self.site.cluster, str(next(self._stamps))
        labels = {"metadata": {"labels": {"stamp": stamp}}}
        cluster.plane.api.patch("v1", "Service", self.name, labels, namespace=cluster.namespace)

        def follow() -> bool:
            slices = self._slices()
            return bool(slices) and all(one["metadata"]["labels"].get("stamp") == stamp for one in slices)

        return took_s("EndpointSlices follow", follow, timeout_s=CONTROLLERS_S)

    def update(self) -> None:
        """Replace all pods, WAVE at a time: new ones are ready before old ones are told to end."""
        new = ips_of(next(self.generations), subnet=self._subnet)
        for start in range(0, N_PODS, WAVE):
            self._make(new[start : start + WAVE])
            self._end(self.current[start : start + WAVE])
        self.current = new
        self.ending()

    def _make(self, ips: Sequence[str]) -> None:
        processes.await_condition("the addresses are free", lambda: not set(ips) & self.ending())
        self.site.fleet.start(self.name, ips)
        list(self._workers.map(self._make_one, ips))
        self.told_s.append(took_s("EndpointSlices say who is ready", lambda: set(ips) <= self._ready(), timeout_s=CONTROLLERS_S))

    def _make_one(self, ip: str) -> None:
        """A Pod that is ready from the first look at it."""
        api, namespace, name = self.site.cluster.plane.api, self.site.cluster.namespace, pod_name(self.name, ip)
        container = {"name": "app", "image": "registry.invalid/app", "ports": [{"name": "http", "containerPort": 8080}]}
        spec = {"nodeName": NODE, "automountServiceAccountToken": False, "containers": [container]}
        metadata = {"name": name, "namespace": namespace, "labels": {"app": self.name}}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
        api.patch("v1", "Pod", name, {"status": status}, namespace=namespace, subresource="status")

    def _end(self, ips: Sequence[str]) -> None:
        """Terminating at the API, and then SIGTERM at the pod."""
        list(self._workers.map(lambda ip: self._delete(ip, grace_s=30), ips))
        self.told_s.append(took_s("EndpointSlices say who ends", lambda: not self._ready() & set(ips), timeout_s=CONTROLLERS_S))
        self.site.fleet.terminate(ips, accept_s=stretched(ACCEPT_S))
        self._ending.update(ips)

    def _slices(self) -> list[JsonObject]:
        api, query = self.site.cluster.plane.api, {"labelSelector": f"kubernetes.io/service-name={self.name}"}
        slices: list[JsonObject] = api.list(
            "discovery.k8s.io/v1", "EndpointSlice", namespace=self.site.cluster.namespace, query=query
        )["items"]
        return slices

    def _ready(self) -> set[str]:
        """The addresses that the API server says are ready."""
        endpoints = [endpoint for one in self._slices() for endpoint in one.get("endpoints") or []]
        return {ip for endpoint in endpoints if endpoint["conditions"].get("ready") for ip in endpoint["addresses"]}

    def ending(self) -> set[str]:
        """Remove the Pod objects of those that have ended; return those that have not."""
        if self._ending:
            alive = self.site.fleet.pods()
            ended = [ip for ip in self._ending if ip not in alive]
            list(self._workers.map(lambda ip: self._delete(ip, grace_s=0), ended))
            self._ending.difference_update(ended)
        return set(self._ending)

    @property
    def is_settled(self) -> bool:
        """Whether every pod that was told to end has done so."""
        return not self.ending()

    def _delete(self, ip: str, *, grace_s: int) -> None:
        cluster = self.site.cluster
        cluster.plane.api.delete("v1", "Pod", pod_name(self.name, ip), namespace=cluster.namespace, grace_s=grace_s)


@pytest.fixture
def rolling(shared_site: Site) -> App:
    """An app of ten pods."""
    app = shared_site.create("rolling", ips_of(0))
    shared_site.await_app(app)
    return app


def test_a_hundred_rolling_updates(site: Site, rolling: App, fault: FaultFactory) -> None:
    """GETs, POSTs, streams and WebSockets: none fails, and at the end the table has the last ten pods and no other."""
    measured = fault(
        f"{N_UPDATES} rolling updates of {N_PODS} pods", right="200; a WebSocket ends by its pod's own Close", recovered_max_s=30
    )
    deployment = Deployment(site, rolling.name)
    requests = [
        Request(host=rolling.host, app=rolling.name),
        Request(host=rolling.host, path="/slow?slow_ms=100", app=rolling.name),
        Request(host=rolling.host, path="/a", app=rolling.name),
        Request(host=rolling.host, path="/post", method="POST", body="x" * 500, app=rolling.name),
    ]
    plain = [Request(host=rolling.host, app=rolling.name)]
    with (
        site.loaded(rolling, measured, protocols=("http1",), requests=requests) as mixed,
        site.loaded(rolling, measured, protocols=("h2", "websocket"), requests=plain) as traffic,
    ):
        mixed.served(40)
        began_s = time.monotonic()
        for _ in range(N_UPDATES):
            deployment.update()
        spent_s = time.monotonic() - began_s
        wanted = {f"{ip}:8080" for ip in deployment.current}

        def is_table_right() -> bool:
            found = {one for one in site.cluster.endpoints() if one.startswith("10.244.1")}
            assert deployment.is_settled and found == wanted, found ^ wanted
            return True

        measured.recovered_s = took_s("the table has the last pods and no other", is_table_right, timeout_s=60)
        traffic.served(40)
    print(f"EndpointSlices followed after {max(deployment.told_s):.2f} s at most")
    measured.notes.append(f"an update every {spent_s / N_UPDATES:.1f} s")
    measured.check(at_least=1500)
