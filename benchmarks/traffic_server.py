"""Traffic Servers to measure: ours over manifests or an API server, and bare ones over static rules."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ports
from deploy import compile as compiler
from deploy import server
from deploy.server import RecordValue
from tests.harness import processes

HEADER_REWRITE = """cond %{REMAP_PSEUDO_HOOK}
set-header X-Forwarded-For %{IP:CLIENT}
set-header X-Forwarded-Proto "http"
set-header X-Forwarded-Host %{CLIENT-HEADER:Host}
set-header X-Forwarded-Port "80"
"""  # what kubernetes_remap sets; the two constants are in the reference's favour
START_TIMEOUT_MS = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A running proxy: the CPU time of `pids` and of their children is its cost."""

    name: str
    port: int
    pids: tuple[int, ...]
    started_s: float = 0.0  # time.monotonic just before its process was made
    ready_s: float = 0.0  # and when it listened; 0 if nobody waited for that


def built() -> compiler.Build:
    """Return the build to measure: ATSK8S_BUILD, which `build.py bench` sets, else one made now."""
    named = os.environ.get("ATSK8S_BUILD")
    return compiler.Build(directory=Path(named)) if named else compiler.build()


def plugin_lines(options: Sequence[str], *, tls: bool = False) -> tuple[list[str], list[str]]:
    """Return the lines of remap.config and plugin.config that use our plugins with `options` ("--name=value")."""
    build = built()
    parameters = " ".join(f"@pparam={option}" for option in options)
    plugins = [f"{build.ssl_plugin} {' '.join(options)}"] if tls else []
    return [f"map / http://localhost @plugin={build.remap_plugin} {parameters}"], plugins


@contextlib.contextmanager
def running(
    name: str,
    root: Path,
    *,
    remap: Sequence[str],
    plugins: Sequence[str] = (),
    records: Mapping[str, RecordValue] | None = None,
    files: Mapping[str, str] | None = None,
    samples: Path = server.SAMPLES,
    environment: Mapping[str, str] | None = None,
    tls: bool = False,
    cache_mb: int = 128,
    timeout_s: float = START_TIMEOUT_MS / 1000,
) -> Generator[Proxy]:
    """Run one traffic_server on loopback while the block runs.

    Args:
        name: of the variant.
        root: of its tree, absent or empty.
        remap: lines of remap.config.
        plugins: lines of plugin.config.
        records: over those that are shipped.
        files: further files for etc/; their text may name it as ETC, as may `remap`.
        samples: directory of the configuration that everything starts from; what is shipped by default.
        environment: added to that of the process.
        tls: the port speaks TLS.
        cache_mb: size of its cache.
        timeout_s: bound of its start.

    Raises:
        server.ServerError: it did not start or ended by itself.
    """
    port = ports.free(processes.LOOPBACK)
    etc = str(root.absolute() / "etc")
    tree = server.make_tree(
        root,
        server_ports=f"{port}:ip-in=127.0.0.1{':ssl' if tls else ''}",
        remap=[line.replace("ETC", etc) for line in remap],
        plugins=plugins,
        records=records,
        cache_mb=cache_mb,
        samples=samples,
    )
    for file_name, text in (files or {}).items():
        tree.write(file_name, text.replace("ETC", etc))
    given = {"ATSK8S_START_TIMEOUT_MS": str(START_TIMEOUT_MS), **(environment or {})}
    started_s = time.monotonic()
    with server.running(server.Server(tree, environment=given)) as running_server:
        running_server.await_listening([("127.0.0.1", port)], timeout_s=timeout_s)
        pids = (running_server.pid,)
        yield Proxy(name=name, port=port, pids=pids, started_s=started_s, ready_s=time.monotonic())


def debian_samples(directory: Path) -> Path:
    """Make a directory with Debian's own configuration, where running() starts from ours otherwise."""
    directory.mkdir(mode=0o755)
    for name in ("records.config", "ip_allow.yaml", "logging.yaml"):
        text = (Path("/etc/trafficserver") / name).read_text(encoding="utf-8")
        (directory / name).write_text(text, encoding="utf-8")
    return directory
