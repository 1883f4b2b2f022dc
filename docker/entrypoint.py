#!/opt/atsk8s/venv/bin/python3 -I
"""Container entry point: checks the settings, sizes the cache, then becomes the supervisor of traffic_server.

No configuration text comes from Kubernetes.  The plugins read ATSK8S_* and Traffic Server reads PROXY_CONFIG_*
themselves; what is written here is storage.config, from a fixed template and one checked integer, links to
/etc/atsk8s, and what the variables of apache's controller add to it: files that the administrator names, checked.
A setting that cannot work ends in one line on stderr and exit status 2, before Traffic Server starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from atsk8s.config import OPTIONS, parse_settings
from atsk8s.errors import SettingsError
from atsk8s.settings import Settings

TRAFFIC_SERVER = "/usr/bin/traffic_server"
SUPERVISOR = "/opt/atsk8s/bin/supervisor"
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
# How long a stop waits for requests under way, in a pod: less than Kubernetes' terminationGracePeriodSeconds of 30.
POD_DRAIN_S = 20

# Variables of apache's controller that name a file of the administrator's, and what of /etc/atsk8s it stands for.
REPLACING_FILES = {"LOG_CONFIG_FNAME": "logging.yaml", "SSL_SERVERNAME_FNAME": "sni.yaml"}
FILE_BYTES_MAX = 1 << 20
PLUGIN_LINE_BYTES_MAX = 1023  # of plugin.config: Traffic Server drops the rest without a word
TLS_DIRS_MAX = 1000
# More Lua states than threads: a thread has one of its own, and waits for nobody.
SNIPPETS_RULE = "@plugin=tslua.so @pparam=--states=64 @pparam=/opt/atsk8s/lib/snippets.lua"
# What a configuration line can hold without quoting, which Traffic Server's parsers do not all know.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_.,+@=/-]*")


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


def make_state_dir(run_dir: Path) -> Path:
    """Make the directory for the last good state, open to nobody else: what a server that is started again serves from."""
    directory = run_dir / "state"
    directory.mkdir(mode=0o700, exist_ok=True)
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


def named_file(variable: str, name: str) -> Path:
    """Return the administrator's file that `variable` names: absolute, or in /etc/atsk8s.

    Raises:
        SettingsError: it is not there, no plain file, too large or not readable.
    """
    path = CONFIG_DIR / name  # an absolute name stays what it is
    where = f"{variable}={name[:200]!r}"
    if not name.isprintable():
        raise SettingsError(f"{where}: a file's name has no control characters; correct it")
    try:
        found = path.stat()
    except OSError as error:
        raise SettingsError(f"{where}: {path}: {error.strerror}; mount the file, or unset the variable") from None
    if not stat.S_ISREG(found.st_mode):
        raise SettingsError(f"{where}: {path} is no file; name a file")
    if found.st_size > FILE_BYTES_MAX:
        raise SettingsError(f"{where}: {path} has {found.st_size} bytes; at most {FILE_BYTES_MAX} are taken")
    if not os.access(path, os.R_OK):
        raise SettingsError(f"{where}: uid {os.getuid()}, gid {os.getgid()} may not read {path}; make it readable for gid 0")
    return path


def more_plugins(path: Path) -> str:
    """Return the lines of EXTRA_PLUGIN_FNAME.

    Raises:
        SettingsError: no text, a line that Traffic Server would cut, or our own plugin a second time.
    """
    where = f"EXTRA_PLUGIN_FNAME={str(path)!r}"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{where}: not UTF-8; it is to hold lines of plugin.config") from None
    for number, line in enumerate(text.split("\n"), 1):
        if len(line.encode()) > PLUGIN_LINE_BYTES_MAX:
            raise SettingsError(f"{where}: line {number} is longer than the {PLUGIN_LINE_BYTES_MAX} bytes that are read")
        if any(not char.isprintable() and char not in "\t\r" for char in line):
            raise SettingsError(f"{where}: line {number} has control characters; it is to hold lines of plugin.config")
        if line.split("#")[0].strip().split(" ")[0].rpartition("/")[2] == "kubernetes_ssl.so":
            raise SettingsError(f"{where}: line {number}: kubernetes_ssl.so is loaded already; remove the line")
    return text if text.endswith("\n") or not text else f"{text}\n"


def certificate_lines(directories: str) -> list[str]:
    """Return the lines of ssl_multicert.config for POD_TLS_PATH: colon-separated directories, each with a tls.crt and a tls.key.

    What they hold serves clients to whom no Ingress's certificate applies; of several the server name decides.

    Raises:
        SettingsError: names the file that is missing or unreadable.
    """
    lines = []
    listed = [directory for directory in directories.split(":") if directory]
    if len(listed) > TLS_DIRS_MAX:
        raise SettingsError(f"POD_TLS_PATH: {len(listed)} directories; at most {TLS_DIRS_MAX} are taken")
    for directory in listed:
        if not PLAIN_PATH.fullmatch(directory):
            raise SettingsError(f"POD_TLS_PATH: {directory[:200]!r} is not an absolute path of letters, digits and _.,+@=/-")
        certificate, key = (f"{directory.rstrip('/')}/{name}" for name in ("tls.crt", "tls.key"))
        for file in (certificate, key):
            named_file("POD_TLS_PATH", file)
        lines.append(f"dest_ip=* ssl_cert_name={certificate} ssl_key_name={key}")
    return lines


def apply_ancestors_files(directory: Path, env: Mapping[str, str]) -> None:
    """Add to Traffic Server's configuration, at `directory`, the files that variables of apache's controller name.

    Raises:
        SettingsError: one of them cannot be used.
    """
    for variable, place in REPLACING_FILES.items():
        if name := env.get(variable, ""):
            path = named_file(variable, name)
            (directory / place).unlink(missing_ok=True)
            (directory / place).symlink_to(path)
    if name := env.get("EXTRA_PLUGIN_FNAME", ""):
        extend(directory / "plugin.config", more_plugins(named_file("EXTRA_PLUGIN_FNAME", name)))
    if lines := certificate_lines(env.get("POD_TLS_PATH", "")):
        extend(directory / "ssl_multicert.config", "".join(f"{line}\n" for line in lines))


def add_snippets(link: Path) -> None:
    """Put a file in the place of the link to remap.config: the rules of kubernetes_remap.so go on with tslua.so.

    A file of the administrator's that names tslua.so itself stays as it is.
    """
    text = link.read_text(encoding="utf-8")
    if "@plugin=tslua.so" in text:
        return
    lines = [
        f"{line} {SNIPPETS_RULE}" if "kubernetes_remap.so" in line and not line.lstrip().startswith("#") else line
        for line in text.splitlines()
    ]
    link.unlink()
    link.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def extend(link: Path, text: str) -> None:
    """Put a file in the place of a link: what it leads to, and `text`."""
    former = link.read_text(encoding="utf-8") if link.exists() else ""
    link.unlink(missing_ok=True)
    link.write_text(former + ("" if former.endswith("\n") or not former else "\n") + text, encoding="utf-8")


def ancestors_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Return what variables of apache's controller mean in ours, where theirs are no options of the plugins themselves.

    INGRESS_DEBUG, whatever it holds: debug lines, on stderr as all others.
    """
    meant: dict[str, str] = {}
    if env.get("INGRESS_DEBUG", ""):
        meant["ATSK8S_LOG_LEVEL"] = "debug"
        meant["PROXY_CONFIG_DIAGS_DEBUG_ENABLED"] = "1"
        meant["PROXY_CONFIG_DIAGS_DEBUG_TAGS"] = "atsk8s"
    return meant


def without_ancestors_words(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with namespaces as apache's controller read them: in any case, and INGRESS_NS=all for all of them."""
    plain = {**env, **{name: env[name].lower() for name in ("INGRESS_NS", "INGRESS_IGNORE_NS") if name in env}}
    if plain.get("INGRESS_NS", "").strip() == "all":
        del plain["INGRESS_NS"]
    return plain


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
    env = without_ancestors_words(env)
    env = {**ancestors_variables(env), **env}
    settings = parse_settings(arguments, env)
    if "RESYNC_PERIOD" in env or "RESYNC_PRIOD" in env:
        print("atsk8s: RESYNC_PERIOD is not needed: changes are seen as they are made; it has no effect", file=sys.stderr)
    size_mb = cache_mb(env.get("TS_CACHE_SIZE", ""))
    check_source(settings, env)
    run_dir = make_run_dir()
    if size_mb:
        check_writable(CACHE_DIR, "make the volume writable for gid 0 (fsGroup: 0), or set TS_CACHE_SIZE=0")
        check_room(size_mb)
    make_config_dir(run_dir, size_mb)
    apply_ancestors_files(run_dir / "etc", env)
    if settings.snippets:
        add_snippets(run_dir / "etc/remap.config")
    # A flag wins over the environment, which wins over our defaults.
    defaults = traffic_server_defaults(run_dir, has_ipv6=has_ipv6())
    if env.get("KUBERNETES_SERVICE_HOST"):
        defaults["PROXY_CONFIG_STOP_SHUTDOWN_TIMEOUT"] = str(POD_DRAIN_S)
    merged = {**defaults, "ATSK8S_STATE_DIR": str(make_state_dir(run_dir)), **env, **variables_of(arguments)}
    url = health_url(merged["PROXY_CONFIG_HTTP_SERVER_PORTS"], settings.health_path)
    (run_dir / HEALTH_FILE).write_text(url, encoding="utf-8")
    return merged


def main() -> NoReturn:
    try:
        env = prepare(sys.argv[1:], os.environ)
        os.execve(SUPERVISOR, [SUPERVISOR, TRAFFIC_SERVER], env)
    except SettingsError as error:
        # One line, whatever the value holds.
        print("atsk8s: " + "".join(char if char.isprintable() else "?" for char in str(error)), file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"atsk8s: cannot start {SUPERVISOR}: {error}", file=sys.stderr)
    sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
