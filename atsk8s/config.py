"""Settings: every option of the plugins, in one table, parsed once.

An option exists as `--name=value` and as the environment variable `ATSK8S_NAME`; some also under the name that an ancestor
gave them.  The flag wins over `ATSK8S_NAME`, which wins over the ancestor's variable, which wins over the default.  The table
`OPTIONS` is the only place that knows an option's name, default, unit and help; docs/options.md is generated from it.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final, TypeAlias, TypeVar

from atsk8s.errors import SettingsError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

CONTROLLER_NAME: Final = "atsk8s.io/ingress-controller"  # IngressClass spec.controller of the classes that are ours
DEFAULT_INGRESS_CLASS: Final = "atsk8s"
OPTION_BYTES_MAX: Final = 4096  # one option's value
HEALTH_PATH_BYTES_MAX: Final = 255  # ATSK_HEALTH_PATH_MAX of plugin_c
TRUSTED_PROXIES_MAX: Final = 256  # ATSK_TRUSTED_MAX of plugin_c: every request's client is held against each

E = TypeVar("E", bound=StrEnum)


@unique
class Tenancy(StrEnum):
    """Who owns what when nobody granted it.  SHARED: a host+path belongs to the namespace of the oldest Ingress that claims it.
    STRICT: a host, and all hosts under a wildcard, belong to one namespace alone."""

    SHARED = "shared"
    STRICT = "strict"


@unique
class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Token:
    """A bearer token.  Neither `str` nor `repr` shows it; `reveal` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Token(redacted)" if self._value else "Token()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All options, checked.  Equality is what "the same options in both plugins" means."""

    kubeconfig: str = ""
    manifests: str = ""
    server: str = ""
    ca_file: str = ""
    token: Token = field(default_factory=lambda: Token(""))
    ingress_classes: tuple[str, ...] = (DEFAULT_INGRESS_CLASS,)
    watch_ingress_without_class: bool = False
    watch_namespaces: tuple[str, ...] = ()
    ignore_namespaces: tuple[str, ...] = ()
    default_certificate: tuple[str, str] | None = None  # namespace, name of a kubernetes.io/tls Secret
    default_backend: tuple[str, str, int | str] | None = None  # namespace, name, port of a Service
    tenancy: Tenancy = Tenancy.SHARED
    cache: bool = False
    allow_external_names: bool = False
    reject_encoded_slash: bool = False
    health_path: str = "/__trafficserver_alive"
    trusted_proxies: tuple[Network, ...] = ()
    admin: tuple[str, int] | None = ("127.0.0.1", 9464)
    start_timeout_ms: int = 10_000
    connect_timeout_ms: int = 5_000
    state_dir: str = ""
    state_certificates: bool = False
    venv: str = ""
    log_level: LogLevel = LogLevel.INFO

    @property
    def allow_loopback_endpoints(self) -> bool:
        """Endpoints on loopback are an attack when the API names them, and a laptop's normal case when a directory does."""
        return bool(self.manifests)


Value: TypeAlias = (
    str
    | bool
    | int
    | Token
    | Tenancy
    | LogLevel
    | tuple[str, ...]
    | tuple[str, str]
    | tuple[str, int]
    | tuple[str, str, int | str]
    | tuple[Network, ...]
    | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of the table.  `field` is the attribute of `Settings`; `parse` raises ValueError with the value's fault."""

    name: str
    field: str
    parse: Callable[[str], Value]
    shape: str
    help: str
    ancestors: tuple[str, ...] = ()  # environment variables of the ancestors that mean the same
    flag: bool = True  # False: environment only, because the value is a secret and command lines and files are read by many

    @property
    def variable(self) -> str:
        return "ATSK8S_" + self.name.upper().replace("-", "_")


def parse_boolean(text: str) -> bool:
    match text.strip().lower():
        case "" | "true" | "on" | "yes" | "1":
            return True
        case "false" | "off" | "no" | "0":
            return False
    raise ValueError("is neither true nor false")


def parse_words(text: str) -> tuple[str, ...]:
    """Comma- or blank-separated words, as both ancestors wrote lists; order and duplicates do not matter."""
    return tuple(sorted(set(text.replace(",", " ").split())))


def _one_of(kind: type[E]) -> Callable[[str], E]:
    def parse(text: str) -> E:
        try:
            return kind(text.strip().lower())
        except ValueError:
            raise ValueError(f"is none of {', '.join(kind)}") from None

    return parse


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("is not an absolute path; it must start with /")
    return text


def _health_path(text: str) -> str:
    if not text.startswith("/") or any(not 0x20 < ord(c) < 0x7F or c in "?#%" for c in text):
        raise ValueError("is not a plain URL path such as /healthz")
    if len(text) > HEALTH_PATH_BYTES_MAX:
        raise ValueError(f"has {len(text)} characters; at most {HEALTH_PATH_BYTES_MAX} are taken")
    return text


def _milliseconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 600_000:
        raise ValueError("is not a whole number of milliseconds from 1 to 600000")
    return int(text)


def _object_name(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ValueError("is not NAMESPACE/NAME")
    return namespace, name


def _service_port(text: str) -> tuple[str, str, int | str]:
    name, colon, port = text.rpartition(":")
    if not colon or not port:
        raise ValueError("is not NAMESPACE/NAME:PORT")
    namespace, service = _object_name(name)
    if port.isascii() and port.isdigit():
        if not 0 < int(port[:6]) < 65536:
            raise ValueError("has a port outside 1..65535")
        return namespace, service, int(port)
    return namespace, service, port


def _networks(text: str) -> tuple[Network, ...]:
    try:
        networks = tuple(sorted({ipaddress.ip_network(w) for w in parse_words(text)}, key=lambda n: (n.version, n)))
    except ValueError as error:
        raise ValueError(f"has an entry that is no address range (CIDR): {error}") from None
    if len(networks) > TRUSTED_PROXIES_MAX:
        raise ValueError(f"has {len(networks)} entries; at most {TRUSTED_PROXIES_MAX} are taken: join neighbouring ranges")
    return networks


def _listen_address(text: str) -> tuple[str, int] | None:
    if text.strip().lower() == "off":
        return None
    host, colon, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError("is neither off nor ADDRESS:PORT with a literal IP address, such as 127.0.0.1:9464") from None
    if not colon or not port.isascii() or not port.isdigit() or int(port[:6]) > 65535:
        raise ValueError("has a port outside 0..65535")
    return str(address), int(port)


def _api_server(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise ValueError("is not a URL that starts with https:// or http://")
    return text.rstrip("/")


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="kubeconfig",
        field="kubeconfig",
        parse=_path,
        shape="FILE",
        help="How to reach the API server. Without it, and without --manifests or --server: the pod's service account.",
    ),
    Option(
        name="manifests",
        field="manifests",
        parse=_path,
        shape="DIR",
        help="No cluster: the YAML files in this directory, watched for changes, are the source of truth.",
    ),
    Option(
        name="server",
        field="server",
        parse=_api_server,
        shape="URL",
        help="The API server's address, instead of a kubeconfig.",
        ancestors=("TS_SERVER",),
    ),
    Option(
        name="ca-file",
        field="ca_file",
        parse=_path,
        shape="FILE",
        help="With --server: certificate authorities to trust, PEM. Default: the service account's.",
        ancestors=("TS_CAFILE",),
    ),
    Option(
        name="token",
        field="token",
        parse=Token,
        shape="TOKEN",
        help="With --server: bearer token. Default: the service account's, read again as it rotates.",
        ancestors=("TS_TOKEN",),
        flag=False,
    ),
    Option(
        name="ingress-class",
        field="ingress_classes",
        parse=parse_words,
        shape="NAME[,NAME...]",
        help=f"Ingresses of these classes are ours, and those whose IngressClass has controller {CONTROLLER_NAME}.",
        ancestors=("INGRESS_CLASS", "TS_INGRESS_CLASSES"),
    ),
    Option(
        name="watch-ingress-without-class",
        field="watch_ingress_without_class",
        parse=parse_boolean,
        shape="true|false",
        help="Ingresses without a class are ours, too. Default: false in a cluster, true with --manifests.",
    ),
    Option(
        name="watch-namespaces",
        field="watch_namespaces",
        parse=parse_words,
        shape="NS[,NS...]",
        help="Only objects in these namespaces. Default: all.",
        ancestors=("INGRESS_NS",),
    ),
    Option(
        name="ignore-namespaces",
        field="ignore_namespaces",
        parse=parse_words,
        shape="NS[,NS...]",
        help="No object in these namespaces.",
        ancestors=("INGRESS_IGNORE_NS",),
    ),
    Option(
        name="default-certificate",
        field="default_certificate",
        parse=_object_name,
        shape="NS/NAME",
        help="The kubernetes.io/tls Secret for TLS clients whose server name no certificate covers.",
    ),
    Option(
        name="default-backend",
        field="default_backend",
        parse=_service_port,
        shape="NS/NAME:PORT",
        help="The Service for requests that nothing else matches. Default: 404.",
    ),
    Option(
        name="tenancy",
        field="tenancy",
        parse=_one_of(Tenancy),
        shape="shared|strict",
        help="Who owns a host: shared lets namespaces share one, path by path; strict gives it to one namespace alone.",
    ),
    Option(
        name="cache",
        field="cache",
        parse=parse_boolean,
        shape="off|on",
        help="Let Traffic Server cache answers that say for how long they are fresh.",
    ),
    Option(
        name="allow-external-names",
        field="allow_external_names",
        parse=parse_boolean,
        shape="true|false",
        help="Route to Services of type ExternalName. Off, because such a Service can name any host that the proxy can reach.",
    ),
    Option(
        name="reject-encoded-slash",
        field="reject_encoded_slash",
        parse=parse_boolean,
        shape="true|false",
        help="Answer 400 to a path with %2F. Off: it stays an opaque part of its path segment.",
    ),
    Option(
        name="health-path",
        field="health_path",
        parse=_health_path,
        shape="PATH",
        help="The path, on every host, that answers 200 when ready and 503 when not.",
    ),
    Option(
        name="trusted-proxies",
        field="trusted_proxies",
        parse=_networks,
        shape="CIDR[,CIDR...]",
        help="Clients whose X-Forwarded-* headers are believed and appended to. Everybody else's are replaced.",
    ),
    Option(
        name="admin",
        field="admin",
        parse=_listen_address,
        shape="ADDRESS:PORT|off",
        help="Where health with reasons, metrics, explain and dump are served. Never on the traffic ports.",
    ),
    Option(
        name="start-timeout-ms",
        field="start_timeout_ms",
        parse=_milliseconds,
        shape="MS",
        help="How long Traffic Server's start waits for the first table before it opens its ports all the same.",
    ),
    Option(
        name="connect-timeout-ms",
        field="connect_timeout_ms",
        parse=_milliseconds,
        shape="MS",
        help="How long one attempt to connect to an endpoint may take before the next endpoint is tried.",
    ),
    Option(
        name="state-dir",
        field="state_dir",
        parse=_path,
        shape="DIR",
        help="Keep the last good table in this directory, and serve from it at start until live data is there. Default: do not.",
    ),
    Option(
        name="state-certificates",
        field="state_certificates",
        parse=parse_boolean,
        shape="true|false",
        help="With --state-dir: certificates and their private keys, too. Off: HTTPS hosts wait for live data.",
    ),
    Option(
        name="venv",
        field="venv",
        parse=_path,
        shape="DIR",
        help="The Python environment to run in. Default: the one installed beside the plugins.",
    ),
    Option(
        name="log-level",
        field="log_level",
        parse=_one_of(LogLevel),
        shape="debug|info|warning|error",
        help="The least important line that is logged.",
    ),
)

_BY_NAME: Final = {option.name: option for option in OPTIONS}


def parse_settings(args: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from flags ("--name=value", or "--name" for a boolean) and the environment.

    Raises:
        SettingsError: an unknown or repeated option, or a value that cannot be; the message names the option, where it came from,
            the fault and what is expected.  A secret option's value is never repeated.
    """
    values: dict[str, Value] = {}
    for option in OPTIONS:
        for variable in (*reversed(option.ancestors), option.variable):
            if variable in environ:
                values[option.field] = _parsed(option, environ[variable], f"environment variable {variable}")
    given: dict[str, str] = {}
    for arg in args:
        name, equals, text = arg.removeprefix("--").partition("=")
        found = _BY_NAME.get(name) if arg.startswith("--") else None
        if found is None or not found.flag:
            raise SettingsError(_unknown(arg, found))
        if not equals and found.parse is not parse_boolean:
            raise SettingsError(f"option --{name} has no value; write --{name}={found.shape}")
        if given.setdefault(name, text) != text:
            raise SettingsError(f"option --{name} is given twice, as {given[name]!r} and as {text!r}; keep one of them")
        values[found.field] = _parsed(found, text, f"option --{name}")
    if "watch_ingress_without_class" not in values:
        values["watch_ingress_without_class"] = bool(values.get("manifests"))
    sources = [f"--{o.name}" for o in OPTIONS if o.field in ("kubeconfig", "manifests", "server") and values.get(o.field)]
    if len(sources) > 1:
        raise SettingsError(f"{' and '.join(sources)} exclude each other: each is a source of truth; keep one of them")
    return Settings(**values)  # type: ignore[arg-type]  # each value was made by its own row's parser


def _parsed(option: Option, text: str, origin: str) -> Value:
    if len(text) > OPTION_BYTES_MAX:
        raise SettingsError(f"{origin} is {len(text)} bytes long; at most {OPTION_BYTES_MAX} are allowed")
    try:
        return option.parse(text)
    except ValueError as error:
        shown = "its value" if not option.flag else repr(text)
        raise SettingsError(f"{origin}: {shown} {error}; expected {option.shape}") from None


def _unknown(arg: str, found: Option | None) -> str:
    if found is not None:
        return f"option --{found.name} is a secret and cannot be a flag; set the environment variable {found.variable}"
    name = arg.partition("=")[0]
    return f"unknown option {name!r}; there are {', '.join('--' + o.name for o in OPTIONS if o.flag)}"


def options_table(options: Iterable[Option] = OPTIONS) -> str:
    """The table of docs/options.md, as Markdown."""
    defaults = Settings()
    rows = ["| option | environment | default | what it does |", "|---|---|---|---|"]
    for o in options:
        name = f"`--{o.name}={o.shape}`" if o.flag else "(environment only)"
        variables = ", ".join(f"`{v}`" for v in (o.variable, *o.ancestors))
        rows.append(f"| {name.replace('|', chr(92) + '|')} | {variables} | {_shown(getattr(defaults, o.field))} | {o.help} |")
    return "\n".join(rows) + "\n"


def _shown(value: object) -> str:
    match value:
        case None | "" | () | Token():
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple() if len(value) == 2 and isinstance(value[1], int):
            return f"`{value[0]}:{value[1]}`"
        case tuple():
            return f"`{','.join(str(v) for v in value)}`"
        case _:
            return f"`{value}`"
