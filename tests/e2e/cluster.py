"""A control plane, a pod network and a Traffic Server that watches it: what e2e tests stand on, and the objects they make."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import ssl
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.compile import Build
from tests.harness import manifests, processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.authority import Authority, Pair, served_serial
from tests.harness.backends import Backends, Fetched, Pod, http_connection
from tests.harness.controlplane import ControlPlane
from tests.harness.kubeapi import JsonObject
from tests.harness.podnet import NODE_IP, PodNet

MANDATORY = ("ingresses.networking.k8s.io", "services", "endpointslices.discovery.k8s.io")
OPTIONAL = ("ingressclasses.networking.k8s.io", "secrets", "namespaces", "configmaps")
# How long a change may take to be seen: the endpointslice controller's share is most of it (up to 10 s after a failure of its own).
SEEN_TIMEOUT_S = 30.0
REMOVED_TIMEOUT_S = 75.0  # after an outage each kind waits up to a minute before it asks again
CLASS = "atsk8s"


@contextlib.contextmanager
def watching(
    build: Build,
    net: PodNet,
    plane: ControlPlane,
    *,
    token: str,
    plugin_options: Sequence[str] = (),
    records: Mapping[str, str | int] | None = None,
) -> Generator[Ats]:
    """Yield a Traffic Server in the pod network, not started yet, whose plugins watch `plane` as the token's user."""
    with ats_directory() as directory:
        directory.mkdir(mode=0o755)
        kubeconfig = plane.kubeconfig(directory / "kubeconfig", token=token)
        (admin_port,) = processes.free_ports(net, "127.0.0.1", 1)
        given = [f"--kubeconfig={kubeconfig}", f"--admin=127.0.0.1:{admin_port}", *plugin_options]
        options = Options(address=NODE_IP, manifests=False, plugin_options=given, records=records or {})
        ats = Ats(build, directory, place=net, options=options)
        ats.admin_port = admin_port
        yield ats


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Everything, as one test sees it: `namespace` is the test's own, and so are hosts that end in ".NAMESPACE.test"."""

    plane: ControlPlane
    net: PodNet
    ats: Ats
    authority: Authority
    namespace: str
    directory: Path

    def host(self, name: str = "www") -> str:
        """A host name that no other test uses."""
        return f"{name}.{self.namespace}.test"

    def in_namespace(self, name: str) -> Cluster:
        """The same in another namespace, made if need be."""
        self.plane.namespace(name)
        return dataclasses.replace(self, namespace=name)

    def remove(self) -> None:
        """Delete the namespace: Ingresses first, so that none of them is seen without what it refers to.

        Then the pods, at once: without a kubelet they would stay, terminating, and everything else with them.
        """
        api = self.plane.api
        api.call("DELETE", api.path("networking.k8s.io/v1", "Ingress", namespace=self.namespace))
        mine = f'"object": "{self.namespace}/'
        processes.await_condition(
            f"no rule of {self.namespace} is left",
            lambda: mine not in self.ats.admin("/dump").body.decode(),
            timeout_s=REMOVED_TIMEOUT_S,
        )
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        api.call("DELETE", api.path("v1", "Pod", namespace=self.namespace), body=body)
        api.delete("v1", "Namespace", self.namespace)

    def allow_conditions(self, ats: Ats | None = None) -> None:
        """Expect log lines about objects of this namespace that are rejected, or accepted with conditions."""
        (ats or self.ats).allow(rf'\[atsk8s\] (rejected|accepted with conditions) object="\w+ {self.namespace}/')

    # --- outages --------------------------------------------------------------------------------------

    def end_outage(self) -> None:
        """Start the API server that was killed."""
        self.plane.start_api_server()
        self.renew_controllers()

    def renew_controllers(self) -> None:
        """Start the controllers anew after an outage: theirs wait up to a minute before they try again."""
        if self.plane.controller_manager is not None:
            self.plane.controller_manager.kill()
            self.plane.start_controller_manager()

    # --- objects ------------------------------------------------------------------------------------

    def create(self, *objects: JsonObject) -> None:
        """Create objects."""
        for one in objects:
            self.plane.api.create(one)

    def ingress(
        self,
        name: str,
        rules: Mapping[str, Sequence[Mapping[str, object]]],
        *,
        ingress_class: str | None = CLASS,
        tls: Mapping[str, Sequence[str]] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> JsonObject:
        """An Ingress in the namespace; rules and tls as for manifests.ingress."""
        made: JsonObject = manifests.ingress(name, rules, namespace=self.namespace, tls=tls)  # type: ignore[arg-type]
        made["metadata"]["annotations"] = dict(annotations or {})
        if ingress_class is None:
            del made["spec"]["ingressClassName"]
        else:
            made["spec"]["ingressClassName"] = ingress_class
        return made

    def service(self, name: str, ports: Sequence[Mapping[str, object]] | None = None, **spec: object) -> JsonObject:
        """A Service that selects app=NAME; its port 80 leads to the pods' port named "http"."""
        shown = list(ports) if ports is not None else [{"name": "web", "port": 80, "targetPort": "http"}]
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": self.namespace, "name": name},
            "spec": {"selector": {"app": name}, "ports": shown, **spec},
        }

    def secret(self, name: str, pair: Pair) -> JsonObject:
        """A TLS Secret."""
        return manifests.tls_secret(name, pair.certificate, pair.key, namespace=self.namespace)

    def pods(self, name: str, ips: Iterable[str | Sequence[str]], *, ports: Mapping[str, int] | None = None) -> None:
        """Make ready pods that a Service called `name` selects, NAME-IP; what listens there is the caller's business."""
        for ip in ips:
            first = ip if isinstance(ip, str) else ip[0]
            self.plane.ready_pod(self.namespace, pod_name(name, first), ip, labels={"app": name}, ports=ports or {"http": 8080})

    def remove_pod(self, name: str, ip: str) -> None:
        """Let a pod end as a kubelet would: it is terminating first, and gone once nothing leads there any more."""
        self.plane.api.delete("v1", "Pod", pod_name(name, ip), namespace=self.namespace, grace_s=30)
        processes.await_condition(
            f"{ip} is out of the table", lambda: not any(ip in one for one in self.endpoints()), timeout_s=SEEN_TIMEOUT_S
        )
        self.plane.api.delete("v1", "Pod", pod_name(name, ip), namespace=self.namespace, grace_s=0)

    def delete(self, api_version: str, kind: str, name: str) -> None:
        """Delete an object of the namespace."""
        self.plane.api.delete(api_version, kind, name, namespace=self.namespace)

    def backends(self, app: str, ips: Iterable[str], *, port: int = 8080) -> Backends:
        """The processes behind pods; a context manager."""
        listed = list(ips)
        pods = [Pod(app=app, ip=ip, port=port) for ip in listed]
        return Backends(pods, directory=self.directory, place=self.net, name=f"{app}-{listed[0].replace(':', '.')}-{port}")

    # --- what is served ------------------------------------------------------------------------------

    def get(self, host: str, path: str = "/", *, https: bool = False) -> Fetched:
        """Send a request."""
        if https:
            return self.ats.get_tls(path, host=host, tls=self.authority.client_context())
        return self.ats.get(path, host=host)

    def await_answer(
        self, host: str, path: str = "/", *, status: int = 200, app: str | None = None, https: bool = False
    ) -> Fetched:
        """Wait until a request is answered with this status, by this app."""

        def probe() -> Fetched:
            answer = self.get(host, path, https=https)
            assert answer.status == status, f"{answer.status} {answer.body[:200]!r}"
            assert app is None or answer.header("x-app") == app, answer.headers
            return answer

        what = f"{'https' if https else 'http'}://{host}{path} is answered {status}" + (f" by {app}" if app else "")
        return processes.await_condition(what, probe, timeout_s=SEEN_TIMEOUT_S)

    def await_serial(self, host: str, serial: int) -> None:
        """Wait until a new handshake for `host` shows the certificate with this serial number."""

        def probe() -> bool:
            connection = self.connection(host)
            try:
                assert isinstance(connection.sock, ssl.SSLSocket)
                return served_serial(connection.sock) == serial
            finally:
                connection.close()

        processes.await_condition(f"{host} shows the certificate {serial:x}", probe, timeout_s=SEEN_TIMEOUT_S)

    def connection(self, host: str) -> http.client.HTTPConnection:
        """An open HTTPS connection."""
        tls = self.authority.client_context()
        return http_connection(self.net, NODE_IP, self.ats.https_port, tls=tls, server_name=host)

    def endpoints(self) -> list[str]:
        """Every endpoint of the namespace's services that gets new requests, ADDR:PORT, sorted; not those that drain."""
        services = self.ats.admin("/dump").json()["services"]
        mine = (found for name, found in services.items() if name.startswith(f"{self.namespace}/") and isinstance(found, list))
        return sorted({endpoint for found in mine for endpoint in found if not endpoint.endswith(" draining")})

    def await_endpoints(self, endpoints: Iterable[str]) -> None:
        """Wait until the namespace's services have just these, ADDR:PORT."""
        wanted = sorted(endpoints)

        def probe() -> bool:
            found = self.endpoints()
            assert found == wanted, found
            return True

        processes.await_condition(f"the endpoints of {self.namespace} are {wanted}", probe, timeout_s=SEEN_TIMEOUT_S)

    def conditions(self, kind: str, name: str) -> list[Mapping[str, str]]:
        """What is held against an object of the namespace."""
        found = self.ats.admin("/conditions").json()
        return [one for one in found if (one["kind"], one["namespace"], one["name"]) == (kind, self.namespace, name)]

    def await_condition_of(self, kind: str, name: str, reason: str) -> Mapping[str, str]:
        """Wait until an object of the namespace has a condition for this reason, and return that."""
        return processes.await_condition(
            f"{kind} {self.namespace}/{name} has the condition {reason}",
            lambda: next((one for one in self.conditions(kind, name) if one["reason"] == reason), None),
            timeout_s=SEEN_TIMEOUT_S,
        )


def pod_name(app: str, ip: str) -> str:
    """The Pod's name of an app at an address."""
    return f"{app}-{ip.replace('.', '-').replace(':', '-')}"
