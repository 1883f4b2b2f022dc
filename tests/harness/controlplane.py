"""A real Kubernetes control plane for tests: starts etcd, kube-apiserver and kube-controller-manager, and breaks them.

`python -m tests.harness.controlplane build` makes the binaries ahead of time and prints their directory.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.harness import controlplane_build, kubeapi, processes
from tests.harness.kubeapi import Api, JsonObject

# The controllers without which Services have no EndpointSlices and Pods no ServiceAccount.  Not node-lifecycle and
# pod-garbage-collector: no kubelet reports here, so they would declare every Node lost and delete its Pods.
CONTROLLERS = (
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "endpoints-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "namespace-controller",
    "garbage-collector-controller",
)

# In a PodNet the API server has an address of its own, so that a test can cut it off (PodNet.blackhole).
POD_NETWORK_ADDRESS = "10.244.0.2"
READ_VERBS = ("get", "list", "watch")
NODE_NAME = "node-1"
_START_TIMEOUT_S = 90.0

# Where API servers tell each other the compacted revision (k8s.io/apiserver pkg/storage/etcd3/compact.go, compactRevKey);
# they drop their snapshots by it.
_COMPACTION_KEY = b"compact_rev_key"


class ControlPlane:
    """One running cluster's control plane.  Use it as a context manager.

    Everything it starts runs in `place`; the test process talks to it through `api`, wherever it is.

    Attributes:
        address, port, url: of the API server, the same over restarts.
        ca_path: PEM file that verifies it.
        admin_token: of a member of system:masters.
        api: the API as that user.
        etcd, api_server, controller_manager: the processes; the last is None without controllers.
    """

    def __init__(
        self,
        *,
        directory: Path,
        place: processes.Place = processes.LOOPBACK,
        address: str | None = None,
        users: Sequence[str] = (),
        controllers: Sequence[str] = CONTROLLERS,
        min_request_timeout_s: int | None = None,
        api_server_flags: Sequence[str] = (),
        binaries: Path | None = None,
    ) -> None:
        """Prepare; `__enter__` starts.

        Args:
            directory: an existing empty directory for data, keys and logs.
            place: where to run: this machine's loopback or a PodNet.
            address: the API server binds this; None means 127.0.0.1, in a PodNet POD_NETWORK_ADDRESS.
            users: names of users who may do nothing until `allow` is called for them.
            controllers: of kube-controller-manager by name; none means that it does not run.
            min_request_timeout_s: ends every watch after one to two times this; None keeps the server's 30 minutes.
            api_server_flags: further flags, after ours.
            binaries: directory of the programs; None builds them if need be.
        """
        self._directory, self._place, self._controllers = directory, place, tuple(controllers)
        self._binaries = binaries
        self._api_server_flags = list(api_server_flags)
        if min_request_timeout_s is not None:
            self._api_server_flags.append(f"--min-request-timeout={min_request_timeout_s}")
        is_loopback = isinstance(place, processes.Loopback)
        self.address = address or ("127.0.0.1" if is_loopback else POD_NETWORK_ADDRESS)
        self.ca_path = directory / "certs" / "apiserver.crt"
        self.admin_token = secrets.token_hex(16)
        self._user_tokens = {user: secrets.token_hex(16) for user in users}
        self._user_resources: dict[str, frozenset[str]] = {}
        self.controller_manager: processes.Child | None = None

    def __enter__(self) -> Self:
        """Start everything and wait until it is ready.

        Raises:
            controlplane_build.BuildError: the binaries were missing and could not be built.
            processes.ProcessError: a process did not become ready; with the end of its log.
        """
        self._binaries = self._binaries or controlplane_build.build()
        self._write_keys()
        self.port = processes.free_ports(self._place, self.address, 1)[0]
        self.url = f"https://{self.address}:{self.port}"
        self._etcd_port, self._etcd_peer_port = processes.free_ports(self._place, "127.0.0.1", 2)
        self.api = Api(address=self.address, port=self.port, ca_path=self.ca_path, token=self.admin_token, place=self._place)
        try:
            self._start_etcd()
            self.start_api_server()
            if self._controllers:
                self.start_controller_manager()
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End everything at once: nothing of it is kept."""
        self._kill_all()

    def _kill_all(self) -> None:
        for name in ("controller_manager", "api_server", "etcd"):
            child: processes.Child | None = getattr(self, name, None)
            if child is not None:
                child.kill()
        self.api.close()

    # --- processes ----------------------------------------------------------------------------------

    def start_api_server(self) -> None:
        """Start the API server, on the same port and data as before, and wait until /readyz says ok."""
        directory = self._directory
        flags = {
            "etcd-servers": self._etcd_url,
            "bind-address": self.address,
            "advertise-address": self.address,
            "secure-port": self.port,
            "cert-dir": directory / "certs",
            "service-cluster-ip-range": "10.96.0.0/16,fd00:10:96::/112",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": directory / "sa.pub",
            "service-account-signing-key-file": directory / "sa.key",
            "token-auth-file": directory / "tokens.csv",
            "authorization-mode": "Node,RBAC",
            "endpoint-reconciler-type": "none",
        }
        command = ["kube-apiserver", *(f"--{name}={value}" for name, value in flags.items())]
        if not self._controllers:
            command.append("--disable-admission-plugins=ServiceAccount")  # nobody would make the accounts it demands
        self.api_server = self._started([*command, *self._api_server_flags])
        self.await_api_server()

    def await_api_server(self, *, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Wait until the API server says that it is ready, on a fresh connection."""
        self.api.close()
        self.api_server.await_ready(
            f"{self.url}/readyz answers ok",
            lambda: self.ca_path.exists() and self.api.request("GET", "/readyz").status == 200,
            timeout_s=timeout_s,
        )

    def kill_api_server(self) -> None:
        """End the API server without warning: the honest outage."""
        self.api_server.kill()
        self.api.close()

    def restart_api_server(self) -> None:
        """Kill the API server and start it again.  Its memory of past events is gone: older watches get 410."""
        self.kill_api_server()
        self.start_api_server()

    def pause_api_server(self) -> None:
        """Stop the API server (SIGSTOP): connections are accepted by the kernel and nothing answers."""
        self.api_server.pause()

    def resume_api_server(self) -> None:
        """Let a paused API server go on."""
        self.api_server.resume()

    def start_controller_manager(self) -> None:
        """Start kube-controller-manager and wait until it works."""
        directory = self._directory
        kubeconfig = self.kubeconfig(directory / "controller-manager.kubeconfig")
        self.controller_manager = self._started(
            [
                "kube-controller-manager",
                f"--kubeconfig={kubeconfig}",
                "--leader-elect=false",
                "--secure-port=0",
                f"--service-account-private-key-file={directory / 'sa.key'}",
                f"--root-ca-file={self.ca_path}",
                f"--controllers={','.join(self._controllers)}",
            ]
        )
        if "serviceaccount-controller" in self._controllers:
            self.controller_manager.await_ready(
                "the default ServiceAccount exists",
                lambda: self._has_default_account("default"),
                timeout_s=_START_TIMEOUT_S,
            )

    def compact(self) -> int:
        """Make etcd forget every revision before the current one, and return that one.

        What goes on from an older resourceVersion is then answered 410: at once where the API server asks etcd
        (api_server_flags=["--watch-cache=false"], or after restart_api_server()); else lists from its snapshots up to
        15 s later, and a watch not before its memory of events has moved on.
        """
        key = base64.b64encode(_COMPACTION_KEY).decode()
        revision = int(self._etcd_call("/v3/kv/range", {"key": key})["header"]["revision"])
        value = base64.b64encode(str(revision).encode()).decode()
        self._etcd_call("/v3/kv/put", {"key": key, "value": value})
        self._etcd_call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def checkpoint(self) -> None:
        """Keep etcd's data as it is now, for go_back(); API server and etcd stop for it, and are ready again."""
        self.kill_api_server()
        self.etcd.stop()
        kept = self._directory / "etcd.kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self._directory / "etcd", kept)
        self._start_etcd()
        self.start_api_server()

    def go_back(self) -> None:
        """Restore what checkpoint() kept, as an operator does from a backup: resourceVersions go back, later objects are gone."""
        self.kill_api_server()
        self.etcd.kill()
        shutil.rmtree(self._directory / "etcd")
        shutil.copytree(self._directory / "etcd.kept", self._directory / "etcd")
        self._start_etcd()
        self.start_api_server()

    def kubectl(self, *arguments: str, text: str = "", timeout_s: float = 60.0) -> str:
        """Run kubectl as the administrator, with `text` as its stdin, and return its output.

        Raises:
            subprocess.CalledProcessError: with its stderr.
        """
        kubeconfig = self.kubeconfig(self._directory / "admin.kubeconfig")
        command = self._place.argv([str(self._program("kubectl")), f"--kubeconfig={kubeconfig}", *arguments])
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=True, timeout=timeout_s, env=self._env
        ).stdout

    # --- who may do what ------------------------------------------------------------------------------

    def token(self, user: str) -> str:
        """Return the bearer token of one of the `users`."""
        return self._user_tokens[user]

    def allow(self, user: str, resources: Iterable[str], *, verbs: Sequence[str] = READ_VERBS) -> None:
        """Let `user` do just `verbs` on just `resources` in all namespaces, and wait until that is so.

        Args:
            user: one of the `users`, or "system:serviceaccount:NAMESPACE:NAME".
            resources: as kubectl writes them: "services", "ingresses.networking.k8s.io".
            verbs: RBAC verbs.
        """
        wanted = frozenset(resources)
        name = f"test:{user}"
        rules = []
        for resource in sorted(wanted):
            plural, _, group = resource.partition(".")
            rules.append({"apiGroups": [group], "resources": [plural], "verbs": list(verbs)})
        rbac = "rbac.authorization.k8s.io"
        role = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}
        binding = {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
        }
        self.api.apply(role)
        self.api.apply(binding)
        for resource in wanted | self._user_resources.get(user, frozenset()):
            processes.await_condition(
                f"{user} {'may' if resource in wanted else 'may not'} {verbs[0]} {resource}",
                lambda resource=resource: self.may(user, verbs[0], resource) == (resource in wanted),  # type: ignore[misc]
            )
        self._user_resources[user] = wanted

    def may(self, user: str, verb: str, resource: str) -> bool:
        """Say whether the API server would let `user` do `verb` on `resource` in every namespace."""
        plural, _, group = resource.partition(".")
        attributes = {"verb": verb, "resource": plural, "group": group}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        return bool(self.api.create(review)["status"]["allowed"])

    def service_account_token(self, name: str, *, namespace: str = "default", expires_s: int = 3600) -> str:
        """Make the ServiceAccount if need be, and return a token of it (TokenRequest; at least 600 seconds)."""
        self.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
        path = self.api.path("v1", "ServiceAccount", namespace=namespace, name=name, subresource="token")
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": expires_s},
        }
        return str(self.api.call("POST", path, body=request)["status"]["token"])

    def kubeconfig(
        self, path: Path, *, token: str | None = None, ca: Literal["inline", "file"] = "inline", mode: int = 0o644
    ) -> Path:
        """Write a kubeconfig to `path` with permissions `mode`, and return `path`.

        Args:
            path: its directory exists.
            token: None means the administrator's.
            ca: the server's certificate as data, or as the name of a file that only our user may be able to reach.
            mode: the product reads it without root's rights.
        """
        cluster: JsonObject = {"server": self.url}
        if ca == "inline":
            cluster["certificate-authority-data"] = base64.b64encode(self.ca_path.read_bytes()).decode()
        else:
            cluster["certificate-authority"] = str(self.ca_path)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token or self.admin_token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config, indent=1))  # JSON is YAML
        path.chmod(mode)
        return path

    def service_account_files(self, directory: Path, *, token: str, namespace: str = "default") -> dict[str, str]:
        """Write what a Pod finds in /var/run/secrets/kubernetes.io/serviceaccount, and return the Pod's environment."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in (("token", token), ("ca.crt", self.ca_path.read_text()), ("namespace", namespace)):
            (directory / name).write_text(text)
        return {"KUBERNETES_SERVICE_HOST": self.address, "KUBERNETES_SERVICE_PORT": str(self.port)}

    # --- objects that need more than one request -------------------------------------------------------

    def namespace(self, name: str, *, labels: Mapping[str, str] | None = None) -> None:
        """Make a Namespace if need be, and wait until Pods can be made in it."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        if self._controllers:
            processes.await_condition(f"{name} has a default account", lambda: self._has_default_account(name))

    def node(self, name: str = NODE_NAME, *, labels: Mapping[str, str] | None = None) -> None:
        """Make a Node if need be: Pods of a Node that does not exist get no endpoints."""
        self.api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels or {})}})

    def ready_pod(
        self,
        namespace: str,
        name: str,
        ip: str | Sequence[str],
        *,
        labels: Mapping[str, str],
        ports: Mapping[str, int] | None = None,
        node: str = NODE_NAME,
    ) -> None:
        """Make a Pod that says it is ready at `ip`, on a Node that exists; what listens there is the caller's business.

        Args:
            namespace: exists.
            name: of the Pod.
            ip: its address, or one per family, the primary one first; not loopback, which the API refuses in slices.
            labels: what Services select.
            ports: name to container port, for Services whose targetPort is a name.
            node: made if need be.
        """
        ips = [ip] if isinstance(ip, str) else list(ip)
        self.node(node)
        container = {
            "name": "app",
            "image": "registry.invalid/app",
            "ports": [{"name": port_name, "containerPort": port} for port_name, port in (ports or {}).items()],
        }
        spec = {"nodeName": node, "automountServiceAccountToken": False, "containers": [container]}
        metadata = {"name": name, "namespace": namespace, "labels": dict(labels)}
        self.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        status = {"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": address} for address in ips]}
        self.api.patch("v1", "Pod", name, {"status": status}, namespace=namespace, subresource="status")
        self.set_ready(namespace, name, is_ready=True)

    def set_ready(self, namespace: str, name: str, *, is_ready: bool) -> None:
        """Let a Pod pass or fail its readiness: the Ready condition of its status."""
        conditions = [{"type": kind, "status": "True" if is_ready else "False"} for kind in ("Ready", "ContainersReady")]
        patch = {"status": {"conditions": conditions}}
        self.api.patch("v1", "Pod", name, patch, namespace=namespace, subresource="status", patch_type="strategic")

    def endpoint_ips(self, namespace: str, service: str) -> list[str]:
        """Return the sorted addresses of the ready endpoints in all EndpointSlices of a Service."""
        query = {"labelSelector": f"kubernetes.io/service-name={service}"}
        slices = self.api.list("discovery.k8s.io/v1", "EndpointSlice", namespace=namespace, query=query)["items"]
        endpoints = [endpoint for item in slices for endpoint in item["endpoints"] or []]
        return sorted(
            address
            for endpoint in endpoints
            if endpoint.get("conditions", {}).get("ready", True)
            for address in endpoint["addresses"]
        )

    # --- within -----------------------------------------------------------------------------------------

    @property
    def _etcd_url(self) -> str:
        return f"http://127.0.0.1:{self._etcd_port}"

    @property
    def _env(self) -> dict[str, str]:
        """Return a small environment: a proxy named in ours would be asked for the API server's address."""
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._directory)}

    def _program(self, name: str) -> Path:
        assert self._binaries is not None
        return self._binaries / name

    def _started(self, command: Sequence[str]) -> processes.Child:
        name, *arguments = command
        return processes.start(
            self._place,
            [str(self._program(name)), *arguments],
            name=name,
            log_path=self._directory / f"{name}.log",
            env=self._env,
            cwd=self._directory,
        )

    def _start_etcd(self) -> None:
        peer_url = f"http://127.0.0.1:{self._etcd_peer_port}"
        flags = {
            "data-dir": self._directory / "etcd",
            "listen-client-urls": self._etcd_url,
            "advertise-client-urls": self._etcd_url,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"default={peer_url}",
            "log-level": "warn",
        }
        self.etcd = self._started(["etcd", "--unsafe-no-fsync", *(f"--{name}={value}" for name, value in flags.items())])
        self.etcd.await_ready("etcd listens", lambda: processes.is_listening(self._place, "127.0.0.1", self._etcd_port))

    def _etcd_call(self, path: str, body: JsonObject) -> JsonObject:
        return kubeapi.post_json(self._place, "127.0.0.1", self._etcd_port, path, body)

    def _write_keys(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        lines = [f'{self.admin_token},admin,admin,"system:masters"\n']
        lines += [f"{token},{user},{user}\n" for user, token in self._user_tokens.items()]
        for name, content in (("sa.key", private), ("sa.pub", public), ("tokens.csv", "".join(lines).encode())):
            path = self._directory / name
            path.touch(mode=0o600)
            path.write_bytes(content)

    def _has_default_account(self, namespace: str) -> bool:
        path = self.api.path("v1", "ServiceAccount", namespace=namespace, name="default")
        return self.api.request("GET", path).status == 200


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m tests.harness.controlplane build")
    print(controlplane_build.build())
