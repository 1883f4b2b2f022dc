"""Other ingress controllers, built from their modules, on the same API server and under the same clock as ours (`--peers`).

    python -m benchmarks.peers        builds them ahead of time

Contour with Envoy, and Traefik: the two whose modules Go's own client fetches and builds.  Options are those of each one's best
figures: Traefik without its 2 s throttle; Contour's hold-off of 100 ms is compiled in.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import native, packages, ports
from benchmarks.cluster import Cluster
from benchmarks.traffic_server import Proxy
from deploy import prerequisites
from deploy.prerequisites import say
from tests.harness import controlplane_build, processes
from tests.harness.podnet import NODE_IP

CONTOUR = ("github.com/projectcontour/contour", "v1.33.8")
TRAEFIK = ("github.com/traefik/traefik/v3", "v3.6.12")
_XDS_PORT = 18002
_LATE_S = 60.0


class PeerError(RuntimeError):
    """A peer cannot be built; the message holds what Go said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A peer: its name in figures, and how it is run, at the node's address."""

    name: str
    start: Callable[[Cluster, int], contextlib.AbstractContextManager[Proxy]]  # the port that it listens on


def built(module: str, version: str, command: str, kept: Sequence[str] = ()) -> Path:
    """Return the directory with the program `command` of a Go module, and with the files `kept` of its sources.

    Raises:
        PeerError: it cannot be fetched or does not compile.
    """
    target = native.cache_dir() / f"{command}-{version}"
    with prerequisites.locked(native.cache_dir() / f"{command}.lock"):
        if target.is_dir():
            return target
        go = controlplane_build.go_command()  # the toolchain that the control plane is built with
        with tempfile.TemporaryDirectory(prefix=f"{command}-", dir=native.cache_dir()) as directory:
            aside = Path(directory)
            say(f"bench: fetching {module} {version}")
            said = json.loads(_go([go, "mod", "download", "-json", f"{module}@{version}"], aside))
            sources = aside / "src"  # the module cache is read-only, and a module with replacements builds only as the main one
            shutil.copytree(said["Dir"], sources, copy_function=shutil.copyfile)
            (sources / "webui/static").mkdir(parents=True, exist_ok=True)
            say(f"bench: building {command} {version}: minutes")
            out = aside / "out"
            out.mkdir(mode=0o755)
            _go([go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(out / command), f"./cmd/{command}"], sources)
            for name in kept:
                shutil.copyfile(sources / name, out / Path(name).name)
            out.rename(target)
    return target


def _go(command: Sequence[str], where: Path) -> str:
    env = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    done = subprocess.run(["nice", *command], cwd=where, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PeerError(f"{' '.join(command)}: {done.stderr.strip()[-1500:] or done.stdout.strip()[-1500:]}")
    return done.stdout


@contextlib.contextmanager
def contour(cluster: Cluster, port: int) -> Generator[Proxy]:
    """Run Contour and an Envoy that it configures."""
    home = built(*CONTOUR, "contour", ["examples/contour/01-crds.yaml"])
    program, envoy = home / "contour", packages.envoy()
    directory = _directory(cluster, "contour")
    cluster.plane.kubectl("apply", "--server-side", "-f", str(home / "01-crds.yaml"))
    cluster.plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")  # else it ends at once
    cluster.plane.namespace("projectcontour")
    config = directory / "config.yaml"
    config.write_text("accesslog-level: disabled\n", encoding="utf-8")
    serve = [str(program), "serve", "-c", str(config), f"--kubeconfig={cluster.kubeconfig}", "--insecure"]
    serve += ["--disable-leader-election", "--xds-address=127.0.0.1", f"--xds-port={_XDS_PORT}"]
    serve += ["--envoy-service-http-address=0.0.0.0", f"--envoy-service-http-port={port}"]
    names = ("--http-port", "--health-port", "--stats-port", "--debug-http-port")
    serve += [f"{name}={ports.free(cluster.net)}" for name in names]
    bootstrap = directory / "envoy.json"
    made = [str(program), "bootstrap", "--xds-address=127.0.0.1", f"--xds-port={_XDS_PORT}"]
    subprocess.run([*made, "--admin-address", str(directory / "admin.sock"), str(bootstrap)], check=True, capture_output=True)
    run_envoy = [str(envoy.path), "-c", str(bootstrap), "--service-cluster", "projectcontour", "--service-node", "n"]
    run_envoy += ["--disable-hot-restart", "--concurrency", "2", "--log-level", "error"]
    started_s = time.monotonic()
    with _running(cluster, "contour", serve, directory) as controller:
        controller.await_ready(
            "Contour serves xDS", lambda: processes.is_listening(cluster.net, "127.0.0.1", _XDS_PORT), timeout_s=_LATE_S
        )
        with _running(cluster, "envoy", run_envoy, directory, envoy.environment) as proxy:
            # Envoy listens once there is a route.
            yield Proxy(name="Contour+Envoy", port=port, pids=(controller.pid, proxy.pid), started_s=started_s)


@contextlib.contextmanager
def traefik(cluster: Cluster, port: int) -> Generator[Proxy]:
    """Run Traefik."""
    program = built(*TRAEFIK, "traefik") / "traefik"
    directory = _directory(cluster, "traefik")
    command = [str(program), f"--entryPoints.web.address=0.0.0.0:{port}", "--providers.kubernetesingress=true"]
    command += ["--providers.providersThrottleDuration=0s", "--global.checknewversion=false"]
    command += ["--global.sendanonymoususage=false", "--log.level=WARN"]
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": os.defpath, "HOME": str(directory)}
    started_s = time.monotonic()
    with _running(cluster, "traefik", command, directory, environment) as child:
        child.await_ready("Traefik listens", lambda: processes.is_listening(cluster.net, NODE_IP, port), timeout_s=_LATE_S)
        yield Proxy(name="Traefik", port=port, pids=(child.pid,), started_s=started_s)


def _directory(cluster: Cluster, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cluster.scratch))  # one peer is started several times


@contextlib.contextmanager
def _running(
    cluster: Cluster, name: str, command: Sequence[str], directory: Path, env: Mapping[str, str] | None = None
) -> Generator[processes.Child]:
    given = dict(env or {"PATH": os.defpath, "HOME": str(directory)})
    child = processes.start(cluster.net, command, name=name, log_path=directory / f"{name}.log", env=given, cwd=directory)
    with processes.running(child):
        yield child


PEERS = (Peer(name="Contour+Envoy", start=contour), Peer(name="Traefik", start=traefik))

if __name__ == "__main__":
    print(built(*CONTOUR, "contour", ["examples/contour/01-crds.yaml"]))
    print(built(*TRAEFIK, "traefik"))
