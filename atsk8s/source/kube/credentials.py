"""Who we are to the API server: a kubeconfig or the pod's service account, as one immutable `Credentials`.

A kubeconfig with nothing but a token, a client certificate or an exec plugin in its current context is read here: the kubernetes
package, which reads the others (OIDC, passwords, proxies), costs a start 0.1 s and 17 MiB.  Done here in any case: the file itself,
so that an error says what to do; exec plugins, which the package runs without a time limit and whose errors it only logs; and the
service account, whose token file the package does not strip and re-reads under no lock.

Secrets: a parser's message may quote the text it failed on, so such messages are rebuilt from their position, never passed on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from atsk8s.errors import KubeError, RejectError
from atsk8s.source.documents import load

MAX_CONFIG_BYTES = 4 * 1024 * 1024
EXEC_TIMEOUT_S = 15.0  # an exec plugin may ask a cloud's API; the watch threads wait for it
EXPIRY_MARGIN_S = 30.0  # renew this long before a token expires, so that no request is sent with one about to
SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Everything a connection needs.  `repr` shows neither the token nor the TLS context."""

    server: str  # https://host:port, without a path's trailing slash
    authorization: str = field(default="", repr=False)  # value of the Authorization header, "" for none (client certificate)
    tls: ssl.SSLContext | None = field(default=None, repr=False)  # None for http
    tls_server_name: str = ""
    proxy: str = ""  # URL; "" for none
    origin: str  # what to blame in messages: "kubeconfig /path" or "service account"
    files: tuple[Path, ...] = ()  # a change of one of them means: load again
    expires_s: float | None = None  # wall clock; None: not known to expire


Load = Callable[[], Credentials]


def read_file(path: Path, what: str) -> bytes:
    """Contents of `path`.

    Args:
        what: names the option or the role of the file in the message.

    Raises:
        KubeError: with what to do about it.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise KubeError(f"{what}: {path}: no such file") from None
    except IsADirectoryError:
        raise KubeError(f"{what}: {path}: is a directory, name the file in it") from None
    except PermissionError:
        raise KubeError(f"{what}: {path}: {_unreadable(path)}") from None
    except OSError as error:
        raise KubeError(f"{what}: {path}: {error.strerror}") from None
    if len(content) > MAX_CONFIG_BYTES:
        raise KubeError(f"{what}: {path}: more than {MAX_CONFIG_BYTES} bytes, this is not such a file")
    return content


def _unreadable(path: Path) -> str:
    uid, gid = os.geteuid(), os.getegid()
    try:
        info = path.stat()
        found = f"mode {info.st_mode & 0o7777:04o}, owner uid {info.st_uid}, group gid {info.st_gid}"
    except OSError:
        found = "a directory above it may not be searched"
    return (
        f"cannot be read as uid {uid}, gid {gid} ({found}). Traffic Server drops its privileges before it loads plugins. "
        f"Let its group read it (chgrp {gid} {path} && chmod 0640 {path}), "
        "or set proxy.config.plugin.load_elevated to 1 in records.config"
    )


def from_service_account(environ: Mapping[str, str] | None = None, directory: Path = SERVICE_ACCOUNT_DIR) -> Credentials:
    """The pod's own identity.  Environment proxies do not apply: the API server is inside the cluster.

    Raises:
        KubeError: not in a pod, or the service account is not mounted.
    """
    environ = os.environ if environ is None else environ
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise KubeError(
            "no --kubeconfig and no --manifests given, and KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: "
            "this is no pod, so name one of the two"
        )
    token_file, ca_file = directory / "token", directory / "ca.crt"
    what = "service account"
    token = read_file(token_file, what).decode("latin-1").strip()
    if not token:
        raise KubeError(f"{what}: {token_file}: is empty")
    _check_header(token, f"{what}: {token_file}")
    read_file(ca_file, what)
    return Credentials(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        authorization=f"Bearer {token}",
        tls=_tls_context(ca_file=str(ca_file), what=f"{what}: {ca_file}"),
        origin=what,
        files=(token_file, ca_file),
    )


def from_token(server: str, token: str = "", ca_file: str = "") -> Credentials:
    """A server's URL, a bearer token and a CA file, as an ancestor's TS_SERVER and TS_TOKEN give them.

    Args:
        ca_file: "" for the system's.

    Raises:
        KubeError: the URL or the CA file is unusable.
    """
    url = _server_url(server, f"TS_SERVER: {server!r} is not an http or https URL")
    _check_header(token, "TS_TOKEN")
    files = (Path(ca_file),) if ca_file else ()
    for file in files:
        read_file(file, "CA file")
    return Credentials(
        server=url.text.rstrip("/"),
        authorization=f"Bearer {token}" if token else "",
        tls=_tls_context(ca_file=ca_file, what="CA file") if url.scheme == "https" else None,
        origin="TS_SERVER",
        files=files,
    )


class _ServerUrl(NamedTuple):
    text: str  # the whole, its scheme in lower case
    scheme: str
    hostname: str


def _server_url(server: str, refusal: str) -> _ServerUrl:
    """A server's http or https URL; raises KubeError(refusal) for what is none."""
    try:
        url = urlsplit(server)
        scheme, hostname = url.scheme, url.hostname or ""
    except ValueError:
        scheme, hostname = "", ""
    # urlsplit drops control characters, which the whole would keep.
    if scheme not in ("http", "https") or not hostname or not all("!" <= char <= "~" for char in server):
        raise KubeError(refusal)
    return _ServerUrl(scheme + server[len(scheme) :], scheme, hostname)


def from_kubeconfig(path: Path, exec_timeout_s: float = EXEC_TIMEOUT_S) -> Credentials:
    """The current context of a kubeconfig file.

    Raises:
        KubeError: missing, unreadable, malformed, or an exec plugin that fails or does not answer in time.
    """
    what = f"--kubeconfig: {path}"
    config = _parse(read_file(path, "--kubeconfig"), what)
    base = path.absolute().parent
    try:
        cluster, user = _current(config, what)
        files = [path]
        for section, name in (
            (cluster, "certificate-authority"),
            (user, "client-certificate"),
            (user, "client-key"),
            (user, "tokenFile"),
        ):
            if section.get(name) and not section.get(f"{name}-data"):
                files.append(base / str(section[name]))
                read_file(files[-1], f"{what}: {name}")
        expires_s = None
        if isinstance(user.get("exec"), dict) and not user.get("token") and not user.get("tokenFile"):
            expires_s = _run_exec_plugin(user, base, what, exec_timeout_s)
        # Inline certificates and keys become files, because that is the only form in which OpenSSL's binding takes them; gone
        # again before this function returns, and in memory where there is such a file system.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="atsk8s-", dir=memory) as scratch:
            if _is_plain(cluster, user):
                named = _read_plain(cluster, user, base, Path(scratch))
            else:
                named = _read_with_package(config, base, Path(scratch), what)
            url = _server_url(named.server, f"{what}: the cluster's server is not an http or https URL")
            tls = None
            if url.scheme == "https":
                tls = _tls_context(
                    ca_file=named.ca_file, cert_file=named.cert_file, key_file=named.key_file, verify=named.verify, what=what
                )
    except KubeError:
        raise
    except Exception as error:
        # The package walks the tree unchecked, and asks an OIDC issuer over the network; its messages may quote values.
        raise KubeError(f"{what}: is not a usable kubeconfig ({type(error).__name__})") from None
    _check_header(named.authorization, f"{what}: the user's token")
    is_local = url.hostname in ("localhost", "::1") or url.hostname.startswith("127.")
    return Credentials(
        server=url.text,
        authorization=named.authorization,
        tls=tls,
        tls_server_name=named.tls_server_name,
        proxy="" if is_local and not cluster.get("proxy-url") else named.proxy,
        origin=f"kubeconfig {path}",
        files=tuple(files),
        expires_s=expires_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """What a kubeconfig's current context comes to.  The files of inline data are gone soon."""

    server: str
    authorization: str = field(default="", repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    tls_server_name: str = ""
    proxy: str = ""


_PLAIN_TEXTS = frozenset(
    (
        "server",
        "certificate-authority",
        "certificate-authority-data",
        "tls-server-name",
        "token",
        "tokenFile",
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
    )
)
_SKIP_VERIFY = "insecure-skip-tls-verify"


def _is_plain(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> bool:
    """Whether there is nothing in these that takes a library to understand: no auth-provider, no password, no proxy."""
    if any(value for name, value in os.environ.items() if name.lower().endswith("_proxy")):
        return False
    return "server" in cluster and all(
        isinstance(value, bool) if name == _SKIP_VERIFY else name in _PLAIN_TEXTS and isinstance(value, str)
        for name, value in (*cluster.items(), *user.items())
    )


def _read_plain(cluster: Mapping[str, Any], user: Mapping[str, Any], base: Path, scratch: Path) -> _Named:
    """Of a plain one.  Inline data goes before a file's name, as with the package.

    Raises:
        ValueError: inline data is not Base64.
        OSError: a file cannot be read or written.
    """

    def file_of(section: Mapping[str, Any], name: str) -> str | None:
        if f"{name}-data" in section:
            if not section[f"{name}-data"]:
                return None
            content = base64.standard_b64decode(section[f"{name}-data"])
            file = scratch / hashlib.sha256(content).hexdigest()  # what two sections have in common is written once
            file.touch(mode=0o600)
            file.write_bytes(content)
            return str(file)
        return str(base / section[name]) if section.get(name) else None

    token = user.get("token", "")
    if "token" not in user and user.get("tokenFile"):
        token = (base / user["tokenFile"]).read_text(encoding="utf-8")
    return _Named(
        server=cluster["server"].rstrip("/"),
        authorization=f"Bearer {token}".strip() if token else "",
        ca_file=file_of(cluster, "certificate-authority"),
        cert_file=file_of(user, "client-certificate"),
        key_file=file_of(user, "client-key"),
        verify=not cluster.get(_SKIP_VERIFY, False),
        tls_server_name=cluster.get("tls-server-name", ""),
    )


def _read_with_package(config: dict[str, Any], base: Path, scratch: Path, what: str) -> _Named:
    """Of any one, with the kubernetes package.

    Raises:
        KubeError: the package refuses it.
        Exception: it is not what the package expects, or an OIDC issuer does not answer.
    """
    # Imported here, for the few starts that need it.
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import KubeConfigLoader

    loaded: Any = Configuration()
    try:
        KubeConfigLoader(config, config_base_path=str(base), temp_file_path=str(scratch)).load_and_set(loaded)
    except ConfigException as error:
        raise KubeError(f"{what}: {error}") from None
    _forget_temporary_files()
    return _Named(
        server=str(loaded.host or "").rstrip("/"),
        authorization=next((str(value).strip() for value in loaded.api_key.values() if value), ""),
        ca_file=loaded.ssl_ca_cert,
        cert_file=loaded.cert_file,
        key_file=loaded.key_file,
        verify=bool(loaded.verify_ssl),
        tls_server_name=str(getattr(loaded, "tls_server_name", None) or ""),
        proxy=str(loaded.proxy or ""),
    )


def _parse(content: bytes, what: str) -> dict[str, Any]:
    try:
        documents = list(load(content.decode()))
    except UnicodeDecodeError:
        raise KubeError(f"{what}: is not YAML text") from None
    except RejectError as error:
        raise KubeError(f"{what}: is {error.message}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise KubeError(f"{what}: is no kubeconfig (a map with clusters, users and contexts)")
    return documents[0]


def _current(config: dict[str, Any], what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The current context's cluster and user, as parts of `config` (not copies)."""

    def named(section: str, item: str, name: object) -> dict[str, Any]:
        entries, found = config.get(section), list[dict[str, Any]]()
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(item), dict):
                found.append(dict.__getitem__(entry, item))
        if len(found) == 1:
            return found[0]
        if found:
            raise KubeError(f"{what}: {section} has {len(found)} entries named {name!r}: leave one")
        raise KubeError(f"{what}: {section} has no entry named {name!r}")

    current = config.get("current-context")
    if not current:
        raise KubeError(f"{what}: current-context is not set (kubectl config use-context NAME)")
    context = named("contexts", "context", current)
    user = named("users", "user", context["user"]) if context.get("user") else {}
    return named("clusters", "cluster", context.get("cluster")), user


def _forget_temporary_files() -> None:
    """The package remembers by content which file it wrote; that directory is about to go, so the memory must too."""
    from kubernetes.config import kube_config

    memory = getattr(kube_config, "_temp_files", None)
    if isinstance(memory, dict):
        memory.clear()


def _tls_context(
    *, ca_file: str | None, cert_file: str | None = None, key_file: str | None = None, verify: bool = True, what: str
) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        detail = getattr(error, "reason", None) or type(error).__name__
        raise KubeError(f"{what}: the CA or client certificate or key cannot be used ({detail})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _check_header(value: str, what: str) -> None:
    if any(ord(char) < 0x20 or ord(char) > 0x7E for char in value):
        raise KubeError(f"{what}: has characters that no HTTP header may have")


def _run_exec_plugin(user: dict[str, Any], base: Path, what: str, timeout_s: float) -> float | None:
    """Put what the plugin answers into `user`, in place of `exec`; return when it expires.

    client.authentication.k8s.io/v1, ExecCredential.  Runs in the calling thread, at most `timeout_s`; then the plugin's process
    group is killed.
    """
    plugin = user.pop("exec")
    command, version = plugin.get("command"), plugin.get("apiVersion")
    if not isinstance(command, str) or not command:
        raise KubeError(f"{what}: exec: command is missing")
    arguments = [command if os.sep not in command else str(base / command), *map(str, plugin.get("args") or ())]
    environ = os.environ | {str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()}
    environ["KUBERNETES_EXEC_INFO"] = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}})
    what = f"{what}: exec plugin {command!r}"
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # may hold a token
            env=environ,
            cwd=base,
            start_new_session=True,
        )
    except OSError as error:
        raise KubeError(f"{what}: cannot be started: {error.strerror}") from None
    try:
        answer, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # its own session, so this is the plugin and what it started, nobody else
        process.communicate()
        raise KubeError(f"{what}: no answer in {timeout_s:g} s, killed") from None
    if process.returncode != 0:
        raise KubeError(f"{what}: ended with status {process.returncode}")
    try:
        status = json.loads(answer)["status"]
        if status.get("token"):
            user["token"] = str(status["token"])
        if status.get("clientCertificateData"):
            for ours, theirs in (("client-certificate-data", "clientCertificateData"), ("client-key-data", "clientKeyData")):
                user[ours] = base64.b64encode(str(status[theirs]).encode()).decode()
        expiry = status.get("expirationTimestamp")
        expires_s = datetime.fromisoformat(expiry).timestamp() if expiry else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise KubeError(f"{what}: its answer is no ExecCredential") from None
    if "token" not in user and "client-certificate-data" not in user:
        raise KubeError(f"{what}: its answer has neither a token nor a client certificate")
    return expires_s


def is_expiring(credentials: Credentials, now_s: float | None = None) -> bool:
    """Whether the credentials are about to expire and should be loaded again."""
    if credentials.expires_s is None:
        return False
    return (time.time() if now_s is None else now_s) > credentials.expires_s - EXPIRY_MARGIN_S
