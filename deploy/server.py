"""A private Traffic Server: its own directory tree, ports and process; nothing under /etc or /var is read or changed but
Debian's body_factory.

Started by root, traffic_server becomes `trafficserver` before it loads plugins: everything it reads lies in the tree, and the
tree lies where that user can reach it.  No configuration text comes from anything but this file, deploy/ats and the caller's lines.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TRAFFIC_SERVER = "/usr/bin/traffic_server"
SAMPLES = Path(__file__).resolve().parent / "ats"
BODY_FACTORY = Path("/etc/trafficserver/body_factory")
ATS_USER = "trafficserver"  # proxy.config.admin.user_id of Debian's build

# Files that traffic_server reads; those that no sample provides are made empty (a missing ssl_multicert.config makes
# every TLS handshake fail, the others only log).
_CONFIG_FILES = (
    "records.config",
    "remap.config",
    "plugin.config",
    "ssl_multicert.config",
    "storage.config",
    "sni.yaml",
    "cache.config",
    "hosting.config",
    "parent.config",
    "volume.config",
    "socks.config",
    "splitdns.config",
    "strategies.yaml",
)
_STEP_S = 0.02  # between two looks at a condition
_LOG_TAIL_BYTES = 4000

RecordValue = str | int | float


class ServerError(RuntimeError):
    """Traffic Server cannot be prepared, did not start or did not stop; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The directories and files of one traffic_server; `make_tree` makes it."""

    root: Path
    records: Mapping[str, RecordValue] = field(default_factory=dict)  # over those of records.config

    @property
    def etc(self) -> Path:
        """Its configuration files."""
        return self.root / "etc"

    @property
    def logs(self) -> Path:
        """diags.log, and access logs if any are configured."""
        return self.root / "log"

    @property
    def run(self) -> Path:
        """Sockets, locks, and the copies of remap plugins that a reload makes."""
        return self.root / "run"

    @property
    def output(self) -> Path:
        """What the process itself writes: stdout and stderr."""
        return self.root / "traffic.out"

    @property
    def command(self) -> list[str]:
        """The command line; run it with `environment()`."""
        return [TRAFFIC_SERVER, f"--run-root={self.root}"]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment for the process: a clean one, the records as PROXY_CONFIG_*, then `extra`.

        ATSK8S_*, TS_* and INGRESS_* of the caller's shell are options of the plugins: they must not leak in.
        """
        found = {name: os.environ[name] for name in ("LANG", "TZ", "ASAN_OPTIONS", "TSAN_OPTIONS") if name in os.environ}
        found["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
        for name, value in self.records.items():
            if not name.startswith("proxy.config."):
                raise ServerError(f"record {name!r}: names start with proxy.config.")
            # 9.2 reads PROXY_CONFIG_HTTP_SERVER_PORTS for proxy.config.http.server_ports; it wins over records.config.
            found[name.replace(".", "_").upper()] = str(value)
        found.update(extra or {})
        return found

    def write(self, name: str, text: str) -> Path:
        """Write etc/`name`, readable to Traffic Server, in one step; return its path."""
        path = self.etc / name
        aside = path.with_name(f".{name}.new")
        aside.write_text(text, encoding="utf-8")
        aside.chmod(0o644)
        aside.replace(path)
        return path


def make_tree(
    root: Path,
    *,
    server_ports: str,
    remap: Sequence[str] = (),
    plugins: Sequence[str] = (),
    records: Mapping[str, RecordValue] | None = None,
    cache_mb: int = 32,
    samples: Path = SAMPLES,
) -> Tree:
    """Make a tree at `root`, an absent or empty directory.

    Args:
        root: absolute; every directory above it must be open to `trafficserver` when root starts the server.
        server_ports: proxy.config.http.server_ports, for example "8080:ip-in=127.0.0.1 8443:ssl:ip-in=127.0.0.1".
        remap: the lines of remap.config.
        plugins: the lines of plugin.config.
        records: proxy.config.* values, over those in deploy/ats/records.config.
        cache_mb: size of the disk cache in MiB; 0 makes none, else at least 16: 9.2.9 ends with a crash at 1.
        samples: the directory whose files are copied to etc/.

    Raises:
        ServerError: the directory is not empty or not reachable, or Traffic Server is not installed.
    """
    if not os.access(TRAFFIC_SERVER, os.X_OK):
        raise ServerError(f"{TRAFFIC_SERVER} is missing: apt-get install trafficserver")
    root = root.absolute()
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise ServerError(f"{root} is not empty: a tree is made in a directory of its own")
    root.chmod(0o755)
    check_reachable(root)
    for name in ("etc", "log", "run", "cache"):
        (root / name).mkdir(mode=0o755)
    _copy_samples(samples, root / "etc")
    if BODY_FACTORY.is_dir():
        shutil.copytree(BODY_FACTORY, root / "etc/body_factory", dirs_exist_ok=True)
    merged: dict[str, RecordValue] = {"proxy.config.http.server_ports": server_ports}
    if os.geteuid() == 0:
        merged["proxy.config.admin.user_id"] = ATS_USER  # without it 9.2 refuses to start as root
    merged.update(records or {})
    tree = Tree(root=root, records=merged)
    tree.write("remap.config", "".join(f"{line}\n" for line in remap))
    tree.write("plugin.config", "".join(f"{line}\n" for line in plugins))
    tree.write("storage.config", f"{root / 'cache'} {cache_mb}M\n" if cache_mb else "")
    (root / "runroot.yaml").write_text(_runroot(root), encoding="utf-8")
    for directory, _, files in os.walk(root):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            # A copy keeps its source's mode, and the checkout may be readable to its owner alone.
            os.chmod(path, 0o755 if os.path.isdir(path) else 0o644)
    if os.geteuid() == 0:
        user = ats_user()
        for name in ("log", "run", "cache", "etc"):  # etc: Traffic Server 9.2 writes snapshots of its files there
            os.chown(root / name, user.pw_uid, user.pw_gid)
    return tree


def ats_user() -> pwd.struct_passwd:
    """Return the account that a traffic_server started by root becomes.  Raises ServerError if there is none."""
    try:
        return pwd.getpwnam(ATS_USER)
    except KeyError:
        raise ServerError(f"no user {ATS_USER!r}: Debian's trafficserver package makes it; install that again") from None


def check_reachable(path: Path) -> None:
    """Check that Traffic Server can reach `path`: when root starts it, another user must be let through every directory.

    Raises:
        ServerError: names the first directory that stops it.
    """
    if os.geteuid() != 0:
        return
    user = ats_user()
    groups = set(os.getgrouplist(user.pw_name, user.pw_gid))
    for directory in reversed([path, *path.parents]):
        status = directory.stat()
        if status.st_uid == user.pw_uid:
            allowed = status.st_mode & stat.S_IXUSR
        elif status.st_gid in groups:
            allowed = status.st_mode & stat.S_IXGRP
        else:
            allowed = status.st_mode & stat.S_IXOTH
        if directory.is_dir() and not allowed:
            raise ServerError(
                f"{path}: user {user.pw_name} may not enter {directory} (mode {status.st_mode & 0o7777:o}); "
                "choose another directory (TMPDIR and ATSK8S_BUILD_CACHE decide), or chmod o+x it"
            )


@contextlib.contextmanager
def scratch_directory(prefix: str = "atsk8s-") -> Iterator[Path]:
    """Yield a new directory that Traffic Server can reach and read; it goes when the block ends."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        path.chmod(0o755)
        try:
            check_reachable(path)
        except ServerError:  # a TMPDIR below somebody's home
            path.rmdir()
            path = Path(tempfile.mkdtemp(prefix=prefix, dir="/var/tmp"))
            path.chmod(0o755)
            check_reachable(path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Server:
    """One running traffic_server over a tree.  Start and stop it from one thread."""

    def __init__(self, tree: Tree, *, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> None:
        """Start the process.

        Args:
            tree: from make_tree.
            environment: added to the tree's; ATSK8S_* options of the plugins, say.
            prefix: a command that runs it elsewhere, for example in a network namespace.
        """
        self.tree = tree
        with tree.output.open("ab") as output:
            self._popen = subprocess.Popen(
                [*prefix, *tree.command],
                cwd=tree.root,
                env=tree.environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in the terminal is for us, who stop it in order.
                start_new_session=True,
            )
        # If we are killed without a chance to stop it, the pipe closes and the guard does.  PR_SET_PDEATHSIG would not: the
        # kernel forgets it when traffic_server changes its user.
        self._guard = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -TERM "$1"', "guard", str(self._popen.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """None while it runs; then its exit status, negative for a signal."""
        return self._popen.poll()

    def await_listening(self, addresses: Iterable[tuple[str, int]], *, timeout_s: float = 60.0) -> None:
        """Wait until every address accepts connections, and see that it is this server that accepts them.

        A taken port is not fatal to Traffic Server: it goes on without.

        Raises:
            ServerError: it ended, or time ran out; with the end of its log.
        """
        wanted = missing = list(addresses)
        deadline = time.monotonic() + timeout_s
        never = threading.Event()
        while missing:
            missing = [address for address in missing if not _accepts(address)]
            if self.status is not None:
                raise ServerError(f"traffic_server ended with status {self.status} while it started\n{self.log_tail()}")
            if missing and time.monotonic() > deadline:
                names = ", ".join(f"{ip}:{port}" for ip, port in missing)
                raise ServerError(f"traffic_server does not listen on {names} after {timeout_s:g} s\n{self.log_tail()}")
            if missing:
                never.wait(_STEP_S)
        for ip, port in wanted:
            if not self._holds(port):
                raise ServerError(f"{ip}:{port} is another process's: choose another port\n{self.log_tail()}")

    def _holds(self, port: int) -> bool:
        """Say whether the process has a listening socket on `port`; yes where /proc does not tell."""
        listening = "0A"  # TCP_LISTEN of the kernel's tcp_states.h
        inodes = set()
        try:
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{self.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == listening and int(fields[1].rpartition(":")[2], 16) == port:
                        inodes.add(f"socket:[{fields[9]}]")
            return any(os.readlink(f"/proc/{self.pid}/fd/{name}") in inodes for name in os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return True

    def stop(self, *, timeout_s: float = 20.0) -> int:
        """End it by SIGTERM and return its exit status; 0 is a clean end.

        Raises:
            ServerError: it was still there after `timeout_s` seconds, and has been killed.
        """
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
        try:
            status = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"traffic_server ignored SIGTERM for {timeout_s:g} s: killed\n{self.log_tail()}") from None
        self._dismiss_guard()
        return status

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._popen.kill()
        self._popen.wait()
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        self._guard.kill()  # before the pipe closes: the id that it would signal is free now
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def log_tail(self) -> str:
        """Return the ends of its logs, for an error message."""
        parts = []
        for path in (self.tree.logs / "diags.log", self.tree.output):
            with contextlib.suppress(OSError), path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
                parts.append(f"end of {path}:\n{log.read().decode(errors='replace')}")
        return "\n".join(parts)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """End `server` when the block ends: in order, and by SIGKILL if that fails."""
    try:
        yield server
    finally:
        server.stop()


def _accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


def _copy_samples(samples: Path, etc: Path) -> None:
    if not (samples / "ip_allow.yaml").is_file():  # without it 9.2 refuses every client
        raise ServerError(f"{samples}/ip_allow.yaml is missing: the checkout is incomplete")
    shutil.copytree(samples, etc, dirs_exist_ok=True)
    for name in _CONFIG_FILES:
        (etc / name).touch()


def _runroot(root: Path) -> str:
    """Return runroot.yaml: Debian compiled absolute directories in, so each one is named."""
    return f"""prefix: {root}
exec_prefix: {root}
bindir: /usr/bin
sbindir: /usr/bin
sysconfdir: {root}/etc
datadir: {root}/cache
includedir: /usr/include
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: {root}/run
runtimedir: {root}/run
logdir: {root}/log
cachedir: {root}/cache
"""
