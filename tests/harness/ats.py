"""A real traffic_server with both plugins for one test module: its own tree and ports, manifests as the source, and a look
at its logs and its end after the test.

The tree comes from deploy/server.py, which the demo uses, too; the process runs in a Place.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import ssl
import urllib.parse
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy import server
from deploy.compile import Build
from tests.harness import processes
from tests.harness.backends import Fetched, fetch

START_TIMEOUT_S = 60.0
CHANGE_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
HEALTH_PATH = "/__trafficserver_alive"
MODULES = Path("/usr/lib/trafficserver/modules")

# What a healthy server says at these levels, besides lines that a test expects.
_USUAL_WARNINGS = (
    r"connection throttle too high",  # fewer file descriptors than its default wants
    r"disk header different for disk .* clearing the disk",  # a new cache
    r"bad nameserver config, fallback to loopback|There is no name server found",  # a pod network has no DNS
)
_LEVEL = re.compile(r"\b(WARNING|ERROR|FATAL|ALERT|EMERGENCY): ")
_OUTPUT_USUAL = re.compile(r"^(NOTE: using .*RUNROOT.*|traffic_server: using root directory .*|Traffic Server [\d.]+ .*)?$")
# Settings of tests: what a laptop needs is not what a test of one machine with two cores does.
_RECORDS: Mapping[str, server.RecordValue] = {"proxy.config.exec_thread.autoconfig": 0, "proxy.config.exec_thread.limit": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a server is started; every field has the usual answer."""

    plugin_options: Sequence[str] = ()  # --name=value, given to both plugins
    rule_plugins: str = ""  # more @plugin=… @pparam=… after ours in the one rule
    rule_prefix: str = ""  # more @plugin=… before ours
    global_plugins: Sequence[str] = ()  # more lines of plugin.config, before ours
    with_remap: bool = True
    with_ssl: bool = True
    remap: Sequence[str] | None = None  # the whole of remap.config instead
    plugins: Sequence[str] | None = None  # the whole of plugin.config instead
    records: Mapping[str, server.RecordValue] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    manifests: bool = True  # --manifests=DIR, and --admin on a port of its own
    address: str = "127.0.0.1"  # where HTTP and HTTPS listen; the admin endpoint is on 127.0.0.1
    cache_mb: int = 32


class Ats:
    """One traffic_server.  Use it as a context manager: it is ready inside, and checked at the end."""

    def __init__(
        self, build: Build, directory: Path, *, place: processes.Place = processes.LOOPBACK, options: Options | None = None
    ) -> None:
        """Prepare tree and manifests directory; start() starts.

        Args:
            build: plugins and venv.
            directory: absent or empty, and reachable to Traffic Server's user; see server.scratch_directory.
            place: where it runs.
            options: how.
        """
        self.options = options or Options()
        self.build, self.place = build, place
        self.directory = directory
        directory.mkdir(mode=0o755, exist_ok=True)
        self.manifests = directory / "manifests"
        self.manifests.mkdir(mode=0o755)
        self.http_port, self.https_port, self.admin_port = processes.free_ports(place, "127.0.0.1", 3)
        self.tree = self._make_tree()
        self._allowed: list[str] = []
        self._read_bytes: dict[Path, int] = {}
        self._child: processes.Child | None = None

    # --- life -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start it, and wait until it is ready."""
        self.start()
        try:
            self.await_ready()
        except BaseException:
            self.child.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it; without an error of the test's own, check status, cores and logs."""
        if self._child is None:
            return
        if error is not None:
            self._child.kill()
            return
        status = self.stop()
        self.check(status)

    @property
    def child(self) -> processes.Child:
        """The process."""
        assert self._child is not None, "not started"
        return self._child

    def start(self) -> processes.Child:
        """Start the process, and wait for nothing."""
        environment = self.tree.environment(self.options.environment)
        self._child = processes.start(
            self.place,
            self.tree.command,
            name="traffic_server",
            log_path=self.tree.output,
            env=environment,
            cwd=self.tree.root,
        )
        return self._child

    def await_ready(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until every port listens and, with the remap plugin, the health path answers 200."""
        address = self.options.address
        for port in (self.http_port, self.https_port):
            is_open = functools.partial(processes.is_listening, self.place, address, port)
            self.child.await_ready(f"port {port} listens", is_open, timeout_s=timeout_s)
        if self.options.with_remap and self.options.remap is None:
            self.child.await_ready("the health path answers 200", lambda: self.get(HEALTH_PATH).status == 200, timeout_s=timeout_s)

    def stop(self) -> int:
        """End it politely and return its exit status."""
        return self.child.stop(timeout_s=STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._child is not None and self._child.status is None:
            self._child.kill()

    def check(self, status: int) -> None:
        """Fail unless it ended with 0, dropped no core and logged nothing unexpected."""
        assert status == 0, f"traffic_server ended with status {status}\n{self.log_tail()}"
        cores = [path for path in self.tree.root.rglob("core*") if path.is_file() and re.fullmatch(r"core(\.\d+)?", path.name)]
        assert not cores, f"core files: {cores}"
        self.check_logs()

    # --- logs -----------------------------------------------------------------------------------

    def allow(self, pattern: str) -> None:
        """Expect log lines that match `pattern` until the next check_logs()."""
        self._allowed.append(pattern)

    def check_logs(self) -> None:
        """Fail if there is a line at WARNING or above since the last look that nobody expected, or anything odd on stderr."""
        allowed = [re.compile(pattern) for pattern in (*_USUAL_WARNINGS, *self._allowed)]
        self._allowed.clear()
        found = [line for line in self._new_lines(self.tree.logs / "diags.log") if _LEVEL.search(line)]
        found += [line for line in self._new_lines(self.tree.output) if not _OUTPUT_USUAL.match(line)]
        unexpected = [line for line in found if not any(pattern.search(line) for pattern in allowed)]
        assert not unexpected, "unexpected in the logs:\n" + "\n".join(unexpected)

    def _new_lines(self, path: Path) -> list[str]:
        try:
            with path.open("rb") as log:
                log.seek(self._read_bytes.get(path, 0))
                new = log.read()
        except FileNotFoundError:
            return []
        self._read_bytes[path] = self._read_bytes.get(path, 0) + len(new)
        return new.decode(errors="replace").splitlines()

    def log(self) -> str:
        """Return the whole of diags.log and of what the process itself wrote."""
        paths = (self.tree.logs / "diags.log", self.tree.output)
        return "\n".join(path.read_text(errors="replace") for path in paths if path.exists())

    def log_tail(self) -> str:
        """Return the end of the logs, for messages."""
        return self.log()[-6000:]

    def n_fds(self) -> int:
        """Return how many file descriptors the process has open."""
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    # --- what it serves ---------------------------------------------------------------------------

    def write(self, name: str, objects: Iterable[Mapping[str, object]]) -> None:
        """Write Kubernetes objects as the manifest NAME, in one step.  JSON is YAML."""
        path = self.manifests / name
        aside = self.directory / f".{name}.new"
        aside.write_text("\n---\n".join(json.dumps(one) for one in objects), encoding="utf-8")
        aside.chmod(0o644)
        aside.replace(path)

    def version(self) -> int:
        """Return the published table's version."""
        return int(self.metrics()["atsk8s_table_version"])

    def change(self, action: Callable[[], object]) -> None:
        """Do `action`, which changes the manifests, and wait until a newer table is published."""
        before = self.version()
        action()
        answer = self.admin(f"/readyz?wait={CHANGE_TIMEOUT_S:g}&version={before + 1}")
        assert answer.status == 200, f"no newer table: {answer.body.decode()}\n{self.log_tail()}"

    def put(self, name: str, objects: Iterable[Mapping[str, object]]) -> None:
        """write(), and wait until the table has it; `objects` must change what is published."""
        self.change(lambda: self.write(name, objects))

    def admin(self, target: str) -> Fetched:
        """GET from the admin endpoint."""
        return fetch(self.place, "127.0.0.1", self.admin_port, target, timeout_s=CHANGE_TIMEOUT_S + 5)

    def metrics(self) -> dict[str, float]:
        """Every metric by its name with its labels, as /metrics writes it."""
        lines = [line for line in self.admin("/metrics").body.decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def counter(self, name: str, **labels: str) -> float:
        """Return a metric's value; 0 if it is not there."""
        wanted = name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else "")
        return self.metrics().get(wanted, 0.0)

    # --- requests ---------------------------------------------------------------------------------

    def get(self, target: str, *, host: str | None = None, headers: Sequence[tuple[str, str]] = (), **more: object) -> Fetched:
        """Send one request over plain HTTP, a connection of its own; `more` goes to backends.fetch."""
        return self._fetch(self.http_port, target, host, headers, more)

    def get_tls(
        self,
        target: str,
        *,
        tls: ssl.SSLContext,
        host: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        server_name: str | None = None,
    ) -> Fetched:
        """Send one request over HTTPS, SNI `server_name` or the host."""
        more = {"tls": tls, "server_name": server_name or host}
        return self._fetch(self.https_port, target, host, headers, more)

    def _fetch(
        self, port: int, target: str, host: str | None, headers: Sequence[tuple[str, str]], more: Mapping[str, object]
    ) -> Fetched:
        sent = ([("Host", host)] if host is not None else []) + list(headers)
        return fetch(self.place, self.options.address, port, target, headers=sent, **more)  # type: ignore[arg-type]

    def raw(self, request: bytes, *, timeout_s: float = 10.0, port: int | None = None) -> bytes:
        """Send bytes on a connection of their own, and return everything that comes until the end of it."""
        answer = b""
        sock = processes.connect(self.place, self.options.address, port or self.http_port, timeout_s=timeout_s)
        with sock, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(request)
            while part := sock.recv(65536):
                answer += part
        return answer

    def explain(self, url: str) -> Mapping[str, object]:
        """Return what the admin endpoint says of a URL."""
        answer = self.admin(f"/explain?{urllib.parse.urlencode({'url': url})}").json()
        assert isinstance(answer, dict)
        return answer

    # --- files ------------------------------------------------------------------------------------

    def plugin_arguments(self) -> list[str]:
        """The options that both plugins get."""
        ours = [f"--manifests={self.manifests}", f"--admin=127.0.0.1:{self.admin_port}"] if self.options.manifests else []
        return [*ours, *self.options.plugin_options]

    def rule(self, *, arguments: Sequence[str] | None = None, source: str = "/") -> str:
        """One line of remap.config with our plugin."""
        given = self.plugin_arguments() if arguments is None else arguments
        ours = " ".join([f"@plugin={self.build.remap_plugin}", *(f"@pparam={one}" for one in given)])
        return f"map {source} http://localhost {self.options.rule_prefix} {ours} {self.options.rule_plugins}".rstrip()

    def ssl_line(self, *, arguments: Sequence[str] | None = None) -> str:
        """The line of plugin.config with our plugin."""
        given = self.plugin_arguments() if arguments is None else arguments
        return " ".join([str(self.build.ssl_plugin), *given])

    def _make_tree(self) -> server.Tree:
        options = self.options
        ip = f"[{options.address}]" if ":" in options.address else options.address
        remap = options.remap if options.remap is not None else ([self.rule()] if options.with_remap else [])
        plugins = [*options.global_plugins, *([self.ssl_line()] if options.with_ssl else [])]
        return server.make_tree(
            self.directory / "ats",
            server_ports=f"{self.http_port}:ip-in={ip} {self.https_port}:ssl:ip-in={ip}",
            remap=remap,
            plugins=options.plugins if options.plugins is not None else plugins,
            records={**_RECORDS, **options.records},
            cache_mb=options.cache_mb,
        )


@contextlib.contextmanager
def ats_directory() -> Generator[Path]:
    """Yield a new directory that Traffic Server's user can reach; pytest's tmp_path is for its owner alone."""
    with server.scratch_directory("atsk8s-test-") as path:
        yield path / "server"
