"""ConfigMaps of a real API server change a real Traffic Server's records while it runs: the second ancestor's walk-through, what is
wrong with one, and what a refusal costs."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from deploy.compile import Build
from tests.e2e.cluster import MANDATORY, OPTIONAL, Cluster, watching
from tests.e2e.test_in_cluster import mounted
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH, Ats, Options, ats_directory
from tests.harness.kubeapi import JsonObject
from tests.harness.manifests import path
from tests.harness.podnet import NODE_IP

MAKES_BAD_OBJECTS = True
ROLLING = "proxy.config.output.logfile.rolling_enabled"
INTERVAL = "proxy.config.output.logfile.rolling_interval_sec"
THRESHOLD = "proxy.config.restart.active_client_threshold"
VIA = "proxy.config.http.insert_response_via_str"
SEEN_TIMEOUT_S = 30.0
RETRY_TIMEOUT_S = 40.0  # a refused kind is asked for again after 0.8 s, doubling
# Answers "X-Records: VALUE VALUE ..." to every request.
ASKING = """
function send()
  local values = {}
  for _, name in ipairs({%s}) do
    values[#values + 1] = tostring(ts.mgmt.get_int(name))
  end
  ts.client_response.header['X-Records'] = table.concat(values, ' ')
end
function do_remap()
  ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, send)
  return 0
end
"""


def asking(directory: Path, names: Sequence[str]) -> str:
    """A plugin of the rule that tells what Traffic Server says its records are."""
    script = directory / "asking.lua"
    script.write_text(ASKING % ", ".join(f'"{name}"' for name in names), encoding="ascii")
    script.chmod(0o644)
    return f"@plugin=tslua.so @pparam={script}"


@contextlib.contextmanager
def serving(build: Build, cluster: Cluster, user: str, ip: str) -> Generator[Ats]:
    """Yield a server of the namespace's own, ready, with a route to one pod."""
    cluster.pods("app", [ip])
    cluster.create(cluster.service("app"), cluster.ingress("site", {cluster.host(): [path("app")]}))
    plane = cluster.plane
    options = [f"--pod-namespace={cluster.namespace}"]
    with (
        cluster.backends("app", [ip]),
        watching(build, cluster.net, plane, token=plane.token(user), plugin_options=options) as ats,
    ):
        names = (ROLLING, INTERVAL, THRESHOLD)
        ats.options = dataclasses.replace(ats.options, rule_plugins=asking(ats.directory, names))
        ats.tree.write("remap.config", ats.rule() + "\n")
        with ats:
            yield ats
            ats.allow("ConfigMap")


def configmap(cluster: Cluster, data: dict[str, str], name: str = "ats-configmap") -> JsonObject:
    """As the walk-through has it."""
    metadata = {"name": name, "namespace": cluster.namespace, "annotations": {"ats-configmap": "true"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def records(ats: Ats, cluster: Cluster) -> str:
    """The three records, as Traffic Server has them."""
    return ats.get("/", host=cluster.host()).header("x-records") or ""


def await_records(ats: Ats, cluster: Cluster, wanted: str) -> float:
    """Wait until they are so; the seconds that it took."""
    began = time.monotonic()

    def probe() -> bool:
        found = records(ats, cluster)
        assert found == wanted, found
        return True

    processes.await_condition(f"the records are {wanted}", probe, timeout_s=SEEN_TIMEOUT_S)
    return time.monotonic() - began


def test_the_walk_through(build: Build, cluster: Cluster) -> None:
    """Created, changed, a key removed, deleted: each is followed, and in the end everything is as it was."""
    api = cluster.plane.api
    with serving(build, cluster, "ingress", "10.244.60.1") as ats:
        before = records(ats, cluster)
        cluster.create(configmap(cluster, {ROLLING: "1", INTERVAL: "3000", THRESHOLD: "0"}))
        took = [await_records(ats, cluster, "1 3000 0")]
        api.apply(configmap(cluster, {ROLLING: "2", INTERVAL: "3000", THRESHOLD: "5"}))
        took.append(await_records(ats, cluster, "2 3000 5"))
        api.apply(configmap(cluster, {INTERVAL: "3000", VIA: "3"}))
        rolling, _, threshold = before.split()
        took.append(await_records(ats, cluster, f"{rolling} 3000 {threshold}"))
        began = time.monotonic()
        processes.await_condition(
            "answers carry Via", lambda: ats.get("/", host=cluster.host()).header("via") is not None, timeout_s=SEEN_TIMEOUT_S
        )
        print(f"seconds until traffic saw it: {time.monotonic() - began:.2f}")
        cluster.delete("v1", "ConfigMap", "ats-configmap")
        took.append(await_records(ats, cluster, before))
        print("seconds from the API server's reply until the record was set:", " ".join(f"{one:.3f}" for one in took))
        assert not [one for one in ats.admin("/conditions").json() if one["kind"] == "ConfigMap"]


def test_the_health_path_follows(build: Build, cluster: Cluster) -> None:
    """To the ConfigMap's path, and back to the option's when it goes; each answers alone."""
    with serving(build, cluster, "ingress", "10.244.64.1") as ats:

        def await_only(here: str, gone: str) -> None:
            processes.await_condition(f"{here} answers", lambda: ats.get(here).status == 200, timeout_s=SEEN_TIMEOUT_S)
            assert ats.get(gone).status == 404

        cluster.create(configmap(cluster, {"healthcheck-path": "/healthz"}))
        await_only("/healthz", HEALTH_PATH)
        cluster.delete("v1", "ConfigMap", "ats-configmap")
        await_only(HEALTH_PATH, "/healthz")


def test_what_is_wrong_is_said_and_the_rest_applied(build: Build, cluster: Cluster) -> None:
    with serving(build, cluster, "ingress", "10.244.61.1") as ats:
        rolling, interval, _ = records(ats, cluster).split()
        unmarked = configmap(cluster, {INTERVAL: "1"}, "somebody-elses")
        unmarked["metadata"]["annotations"] = {}
        cluster.create(unmarked, configmap(cluster, {ROLLING: "on", INTERVAL: "-5", THRESHOLD: "7", "proxy.config.no": "1"}))
        await_records(ats, cluster, f"{rolling} {interval} 7")
        mine = [one for one in ats.admin("/conditions").json() if one["kind"] == "ConfigMap"]
        assert {(one["name"], one["reason"], one["message"].partition(":")[0]) for one in mine} == {
            ("ats-configmap", "InvalidSetting", ROLLING),
            ("ats-configmap", "InvalidSetting", INTERVAL),
            ("ats-configmap", "UnknownSetting", "proxy.config.no"),
        }


def test_the_namespace_is_the_service_account_s(build: Build, cluster: Cluster) -> None:
    """In a pod, without any option: ConfigMaps of its own namespace count, with rights in that one alone, and no other's."""
    plane, namespace, rbac = cluster.plane, cluster.namespace, "rbac.authorization.k8s.io"
    user = f"system:serviceaccount:{namespace}:proxy"
    plane.allow(user, [name for name in (*MANDATORY, *OPTIONAL) if name != "configmaps"])
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]
    about = {"name": "proxy", "namespace": namespace}
    role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": about, "rules": rules}
    subject = {"kind": "ServiceAccount", **about}
    reference = {"apiGroup": rbac, "kind": "Role", "name": "proxy"}
    binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": about, "roleRef": reference, "subjects": [subject]}
    cluster.create(role, binding)
    other = cluster.in_namespace(f"z-{namespace}")
    other.create(configmap(other, {THRESHOLD: "8"}))
    cluster.create(configmap(cluster, {ROLLING: "2"}))
    cluster.pods("app", ["10.244.63.1"])
    cluster.create(cluster.service("app"), cluster.ingress("site", {cluster.host(): [path("app")]}))
    with cluster.backends("app", ["10.244.63.1"]), ats_directory() as directory:
        directory.mkdir(mode=0o755)
        account = directory / "account"
        token = plane.service_account_token("proxy", namespace=namespace)
        environment = plane.service_account_files(account, token=token, namespace=namespace)
        account.chmod(0o755)
        (admin_port,) = processes.free_ports(cluster.net, "127.0.0.1", 1)
        options = Options(
            address=NODE_IP,
            manifests=False,
            plugin_options=[f"--admin=127.0.0.1:{admin_port}"],
            environment=environment,
            rule_plugins=asking(directory, (ROLLING, INTERVAL, THRESHOLD)),
        )
        ats = Ats(build, directory, place=cluster.net, options=options)
        ats.admin_port = admin_port
        with mounted(cluster.net, account), ats:
            processes.await_condition("its own counts", lambda: records(ats, cluster).startswith("2 "), timeout_s=SEEN_TIMEOUT_S)
            assert not records(ats, cluster).endswith(" 8")
            assert "ConfigMap: synced" in ats.admin("/readyz").body.decode().splitlines()
    other.remove()


def test_without_the_right_to_read_them_everything_else_works(build: Build, cluster: Cluster) -> None:
    """403: ready, routed, and health says why; a grant mends it, live."""
    plane = cluster.plane
    without = [name for name in (*MANDATORY, *OPTIONAL) if name != "configmaps"]
    plane.allow("narrow", without)
    cluster.create(configmap(cluster, {THRESHOLD: "9"}))
    with serving(build, cluster, "narrow", "10.244.62.1") as ats:
        assert not records(ats, cluster).endswith(" 9")
        lines = ats.admin("/readyz").body.decode().splitlines()
        (line,) = (line for line in lines if line.startswith("ConfigMap: "))
        assert line.startswith("ConfigMap: not synced (") and "403" in line and "RBAC" in line, line
        assert ats.counter("atsk8s_ready") == 1
        plane.allow("narrow", [*without, "configmaps"])
        processes.await_condition(
            "the record is set once ConfigMaps may be read",
            lambda: records(ats, cluster).endswith(" 9"),
            timeout_s=RETRY_TIMEOUT_S,
        )
        ats.allow("list or watch failed kind=ConfigMap")
