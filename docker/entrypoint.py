#!/opt/atsk8s/venv/bin/python3 -I
"""Container entry point: checks the settings, sizes the cache, then becomes traffic_server.

No configuration text comes from user data.  The plugins read ATSK8S_* and Traffic Server reads PROXY_CONFIG_*
themselves; what is written here is storage.config, from a fixed template and one checked integer, and links to
/etc/atsk8s.  A setting that cannot work ends in one line on stderr and exit status 2, before Traffic Server starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from atsk8s.config import OPTIONS, Settings, parse_settings
from atsk8s.errors import SettingsError

TRAFFIC_SERVER = "/usr/bin/traffic_server"
CONFIG_DIR = Path("/etc/atsk8s")
RUN_DIR = Path("/run/ats")  # locks and what is written here: worth nothing after a stop
SPARE_RUN_DIR = Path("/tmp/ats")  # where no /run/ats was mounted
CACHE_DIR = Path("/var/lib/trafficserver")
HEALTH_FILE = "health"  # in the run directory: the URL that healthcheck asks
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

EXIT_USAGE = 2
DEFAULT_CACHE_MB = 128
MIN_CACHE_MB = 16  # Traffic Server 9.2.9 starts and caches with 16; with 1 it crashes
MAX_CACHE_MB = 64 * 1024 * 1024  # 64 TiB: beyond it the size is a typing error


def traffic_server_defaults(run_dir: Path, *, has_ipv6: bool) -> dict[str, str]:
    """Return the PROXY_CONFIG_* values that make Traffic Server fit a container; the user's own win over each."""
    ports = "8080 8443:ssl"
    if has_ipv6:
        ports = "8080 8080:ipv6 8443:ssl 8443:ipv6:ssl"
    return {
        "PROXY_CONFIG_CONFIG_DIR": str(run_dir / "etc"),
        "PROXY_CONFIG_LOCAL_STATE_DIR": str(run_dir),
        "PROXY_CONFIG_LOG_LOGFILE_DIR": str(run_dir / "log"),
        "PROXY_CONFIG_BODY_FACTORY_TEMPLATE_SETS_DIR": "/etc/trafficserver/body_factory",
        "PROXY_CONFIG_HOSTDB_STORAGE_PATH": str(run_dir),
        "PROXY_CONFIG_ADMIN_USER_ID": "#-1",  # already unprivileged: no setuid to try
        "PROXY_CONFIG_HTTP_SERVER_PORTS": ports,
        # Nothing reloads in a container, and mode 1 maps a copy of each plugin from the run directory, which a
        # noexec tmpfs (Docker's default for --tmpfs) refuses.
        "PROXY_CONFIG_PLUGIN_DYNAMIC_RELOAD_MODE": "0",
        # logging.yaml sends the access log to stdout, and nothing is to grow in the run directory.  Traffic Server still
        # suspends the log when the run directory's file system has less than the headroom free, 1,000 MB by default.
        "PROXY_CONFIG_LOG_MAX_SPACE_MB_HEADROOM": "0",
        "PROXY_CONFIG_LOG_ROLLING_ENABLED": "0",
        "PROXY_CONFIG_ERROR_LOGFILE_FILENAME": "stderr",
        # A line appears within two seconds; the defaults would hold it for five to ten.
        "PROXY_CONFIG_LOG_MAX_SECS_PER_BUFFER": "1",
        "PROXY_CONFIG_LOG_PERIODIC_TASKS_INTERVAL": "1",
        **{
            f"PROXY_CONFIG_DIAGS_OUTPUT_{level}": "E"  # E: stderr
            for level in ("DIAG", "DEBUG", "STATUS", "NOTE", "WARNING", "ERROR", "FATAL", "ALERT", "EMERGENCY")
        },
    }


def variables_of(arguments: Sequence[str]) -> dict[str, str]:
    """Return checked `--name=value` arguments as the ATSK8S_NAME variables they stand for: remap.config is fixed."""
    by_name = {option.name: option.variable for option in OPTIONS}
    pairs = (argument.removeprefix("--").partition("=") for argument in arguments)
    return {by_name[name]: value for name, _, value in pairs}


def cache_mb(text: str) -> int:
    """Return TS_CACHE_SIZE in MiB; 0 means no cache.

    Raises:
        SettingsError: not a whole number, or one that Traffic Server cannot use.
    """
    if text == "":
        return DEFAULT_CACHE_MB
    if re.fullmatch(r"[0-9]{1,9}", text) is None:
        raise SettingsError(f"TS_CACHE_SIZE={text[:40]!r}: expected a whole number of MB, for example 1024; 0 is no cache")
    size = int(text)
    if size != 0 and not MIN_CACHE_MB <= size <= MAX_CACHE_MB:
        raise SettingsError(f"TS_CACHE_SIZE={size}: expected 0 (no cache) or {MIN_CACHE_MB} to {MAX_CACHE_MB} MB")
    return size


def check_source(settings: Settings, env: Mapping[str, str]) -> None:
    """Check that there is somewhere to read Ingresses from: a directory, a kubeconfig or the pod's service account.

    Raises:
        SettingsError: none is named, or the one named is not there or not readable.
    """
    user = f"uid {os.getuid()}, gid {os.getgid()} may not read it"
    if path := settings.manifests:
        if not os.path.exists(path):
            raise SettingsError(f"--manifests={path}: no such directory in the container; mount one with -v DIR:{path}:ro")
        if not os.path.isdir(path):
            raise SettingsError(f"--manifests={path}: not a directory; name the directory that holds the YAML files")
        if not os.access(path, os.R_OK | os.X_OK):
            raise SettingsError(f"--manifests={path}: {user}; chmod a+rX the directory and its files")
    elif path := settings.kubeconfig:
        if not os.path.isfile(path):
            raise SettingsError(f"--kubeconfig={path}: no such file in the container; mount it with -v FILE:{path}:ro")
        if not os.access(path, os.R_OK):
            raise SettingsError(f"--kubeconfig={path}: {user}; give it to gid 0 with mode 0640, or mount a Secret with 0444")
    elif not (settings.server or env.get("KUBERNETES_SERVICE_HOST") or SERVICE_ACCOUNT.is_dir()):
        raise SettingsError("no cluster and no manifests: give --manifests=DIR or --kubeconfig=FILE, or run in a pod")


def check_writable(directory: Path, remedy: str) -> None:
    """Check that this user can create and write a file in `directory`.

    Raises:
        SettingsError: it cannot.
    """
    probe = directory / f".probe.{os.getpid()}"
    try:
        with open(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(b"x")
        probe.unlink()
    except OSError as error:
        who = f"uid {os.getuid()}, gid {os.getgid()}"
        raise SettingsError(f"{directory}: {who} cannot write there ({error.strerror}); {remedy}") from None


def check_room(size_mb: int) -> None:
    """Check that the cache volume has room for `size_mb` MiB, counting what a cache file of an earlier run occupies.

    Raises:
        SettingsError: it has not.  Traffic Server makes the file sparse and would fail later, one write at a time.
    """
    volume = os.statvfs(CACHE_DIR)
    if volume.f_blocks == 0:  # a tmpfs without a limit of its own
        return
    free = volume.f_bavail * volume.f_frsize
    with contextlib.suppress(FileNotFoundError):  # first start
        free += os.stat(CACHE_DIR / "cache.db").st_blocks * 512
    if free < size_mb << 20:
        raise SettingsError(
            f"TS_CACHE_SIZE={size_mb}: {CACHE_DIR} has room for {free >> 20} MB only; make the volume larger or the size smaller"
        )


def make_run_dir() -> Path:
    """Return a directory for what lives as long as the process: /run/ats, or one under /tmp where none was mounted.

    Raises:
        SettingsError: neither can be written.
    """
    directory = RUN_DIR
    if not RUN_DIR.exists():
        try:
            SPARE_RUN_DIR.mkdir(mode=0o700, exist_ok=True)
            directory = SPARE_RUN_DIR
        except OSError:
            pass  # read-only as well: the check below names the directory to mount
    check_writable(directory, f"mount a tmpfs (--tmpfs {RUN_DIR}:mode=1777) or an emptyDir at {RUN_DIR}")
    (directory / "log").mkdir(exist_ok=True)
    return directory


def make_config_dir(run_dir: Path, size_mb: int) -> None:
    """Make the directory that Traffic Server reads: links to all of /etc/atsk8s, and a storage.config of our own.

    Traffic Server 9.2 takes storage.config from the configuration directory only, and the image's is read-only.  A
    storage.config mounted into /etc/atsk8s wins over TS_CACHE_SIZE.
    """
    directory = run_dir / "etc"
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():  # of this container's last start
        old.unlink()
    for file in CONFIG_DIR.iterdir():
        (directory / file.name).symlink_to(file)
    storage = directory / "storage.config"
    if not storage.is_symlink():
        text = f"{CACHE_DIR} {size_mb}M\n" if size_mb else "# TS_CACHE_SIZE=0: no cache\n"
        storage.write_text(text, encoding="ascii")


def health_url(server_ports: str, path: str) -> str:
    """Return the URL of the health path on the first port that speaks plain HTTP, or "" if there is none."""
    for descriptor in server_ports.replace(",", " ").split():
        number, *flags = descriptor.split(":")
        if not (number.isascii() and number.isdigit()) or {"ssl", "quic"} & set(flags):
            continue
        host = "[::1]" if "ipv6" in flags else "127.0.0.1"
        for flag in flags:
            if flag.startswith(("ip-in=", "ip-in!")) and "[" not in flag:
                host = flag[len("ip-in=") :]
        return f"http://{host}:{number}{path}"
    return ""


def has_ipv6() -> bool:
    """Tell whether this network namespace can bind an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def prepare(arguments: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """Check everything, fill the run directory, and return the environment for traffic_server.

    Raises:
        SettingsError: see the checks.
    """
    settings = parse_settings(arguments, env)
    size_mb = cache_mb(env.get("TS_CACHE_SIZE", ""))
    check_source(settings, env)
    run_dir = make_run_dir()
    if size_mb:
        check_writable(CACHE_DIR, "make the volume writable for gid 0 (fsGroup: 0), or set TS_CACHE_SIZE=0")
        check_room(size_mb)
    make_config_dir(run_dir, size_mb)
    # A flag wins over the environment, which wins over our defaults.
    merged = {**traffic_server_defaults(run_dir, has_ipv6=has_ipv6()), **env, **variables_of(arguments)}
    url = health_url(merged["PROXY_CONFIG_HTTP_SERVER_PORTS"], settings.health_path)
    (run_dir / HEALTH_FILE).write_text(url, encoding="utf-8")
    return merged


def main() -> NoReturn:
    try:
        env = prepare(sys.argv[1:], os.environ)
        os.execve(TRAFFIC_SERVER, [TRAFFIC_SERVER], env)
    except SettingsError as error:
        # One line, whatever the value holds.
        print("atsk8s: " + "".join(char if char.isprintable() else "?" for char in str(error)), file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"atsk8s: cannot start {TRAFFIC_SERVER}: {error}", file=sys.stderr)
    sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
