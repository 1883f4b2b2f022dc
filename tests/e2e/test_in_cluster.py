"""Without any option: as a pod finds itself, by its service account's files, whose token is exchanged under it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from deploy.compile import Build
from tests.e2e.cluster import MANDATORY, OPTIONAL, Cluster
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.manifests import path
from tests.harness.podnet import NODE_IP, PodNet

ACCOUNT_DIRECTORY = "/run/secrets/kubernetes.io/serviceaccount"  # what /var/run/secrets/... is on Debian
RENEWED_TIMEOUT_S = 60.0  # files are looked at every 10 s; a refused kind is asked for again after 0.8 s, doubling

DISTURBS_THE_API_SERVER = True


@contextlib.contextmanager
def mounted(net: PodNet, source: Path) -> Generator[None]:
    """Show `source` where a pod has its service account, to processes in the pod network alone."""
    net.run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
    try:
        net.run(["mkdir", "-p", ACCOUNT_DIRECTORY])
        net.run(["mount", "--bind", str(source), ACCOUNT_DIRECTORY])
        try:
            yield
        finally:
            net.run(["umount", ACCOUNT_DIRECTORY])
    finally:
        net.run(["umount", "/run"])


def test_the_service_account_and_its_next_token(build: Build, cluster: Cluster) -> None:
    """It serves; after the old token has become worthless the new one in the file is used, without a restart."""
    host, ip, plane, namespace = cluster.host(), "10.244.50.1", cluster.plane, cluster.namespace
    plane.allow(f"system:serviceaccount:{namespace}:proxy", [*MANDATORY, *OPTIONAL])
    cluster.pods("app", [ip])
    cluster.create(cluster.service("app"), cluster.ingress("site", {host: [path("app")]}))
    with cluster.backends("app", [ip]), ats_directory() as directory:
        directory.mkdir(mode=0o755)
        account = directory / "account"
        token = plane.service_account_token("proxy", namespace=namespace)
        environment = plane.service_account_files(account, token=token, namespace=namespace)
        account.chmod(0o755)
        (admin_port,) = processes.free_ports(cluster.net, "127.0.0.1", 1)
        options = Options(
            address=NODE_IP, manifests=False, plugin_options=[f"--admin=127.0.0.1:{admin_port}"], environment=environment
        )
        ats = Ats(build, directory, place=cluster.net, options=options)
        ats.admin_port = admin_port
        with mounted(cluster.net, account), ats:
            assert ats.get("/", host=host).header("x-app") == "app"

            # A service account that is made anew has tokens of its own: the old ones are refused from then on.
            plane.api.delete("v1", "ServiceAccount", "proxy", namespace=namespace)
            renewed = plane.service_account_token("proxy", namespace=namespace)
            old = plane.api.with_token(token)
            # It remembers for 10 s whom it has let in.
            processes.await_condition(
                "the API server refuses the old token", lambda: old.request("GET", "/api").status == 401, timeout_s=30
            )
            cluster.net.abort_connections(plane.address, plane.port)
            plane.api.close()
            processes.await_condition("the old token is refused", lambda: b"401" in ats.admin("/readyz").body, timeout_s=30)
            assert ats.admin("/readyz").status == 200
            (account / "token").write_text(renewed)
            late = cluster.host("late")
            cluster.create(cluster.ingress("late", {late: [path("app")]}))
            processes.await_condition(
                "the new token is used", lambda: ats.get("/", host=late).status == 200, timeout_s=RENEWED_TIMEOUT_S
            )
            for secret in (token, renewed):
                assert secret not in ats.log()
            ats.allow("list or watch failed")
            cluster.allow_conditions(ats)
