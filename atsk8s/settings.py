"""Settings: every option's value, checked, with its default.  `config` parses them."""

from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final

from atsk8s.label_selector import LabelSelector
from atsk8s.values import Network

CONTROLLER_NAME: Final = "atsk8s.io/ingress-controller"  # IngressClass spec.controller of the classes that are ours
DEFAULT_INGRESS_CLASS: Final = "atsk8s"


@unique
class Tenancy(StrEnum):
    """Who owns what when nobody granted it.  SHARED: a host+path belongs to the namespace of the oldest Ingress that claims it.
    STRICT: a host, and all hosts under a wildcard, belong to one namespace alone."""

    SHARED = "shared"
    STRICT = "strict"


@unique
class EndpointSlices(StrEnum):
    """Whose word counts for where a Service's endpoints are.  ANY: of whoever may write EndpointSlices in its namespace.
    MANAGED: of Kubernetes' own controller alone, which writes the addresses of the namespace's pods."""

    ANY = "any"
    MANAGED = "managed"


@unique
class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@unique
class LogFormat(StrEnum):
    """How the controller's lines look.  TEXT: message name=value ...; JSON: one object a line."""

    TEXT = "text"
    JSON = "json"


@unique
class LoadBalance(StrEnum):
    """How one of a Service's endpoints is chosen, for Ingresses that do not say; HASH: by the client's address."""

    ROUND_ROBIN = "round-robin"
    LEAST_REQUEST = "least-request"
    RANDOM = "random"
    HASH = "hash"


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
    namespace_selector: LabelSelector | None = None
    default_certificate: tuple[str, str] | None = None  # namespace, name of a kubernetes.io/tls Secret
    default_backend: tuple[str, str, int | str] | None = None  # namespace, name, port of a Service
    configmap: tuple[str, str] | None = None  # namespace, name of a ConfigMap with settings of the proxy
    pod_namespace: str = ""
    tenancy: Tenancy = Tenancy.SHARED
    domain_access_list: str = ""  # as model.grants reads it, or with ';' for blanks
    max_hosts_per_namespace: int = 0  # 0: no limit, as of the next two
    max_routes_per_namespace: int = 0
    max_certificates_per_namespace: int = 0
    max_snippet_bytes: int = 65_536
    snippets: bool = False
    snippet_namespaces: tuple[str, ...] = ()  # (): any; with Tenancy.STRICT none
    endpoint_slices: EndpointSlices = EndpointSlices.ANY
    cache: bool = False
    allow_external_names: bool = False
    reject_encoded_slash: bool = False
    health_path: str = "/__trafficserver_alive"
    trusted_proxies: tuple[Network, ...] = ()
    admin: tuple[str, int] | None = ("127.0.0.1", 9464)
    start_timeout_ms: int = 10_000
    connect_timeout_ms: int = 5_000
    load_balance: LoadBalance = LoadBalance.ROUND_ROBIN
    retry_tries: int = 3
    retry_timeout_ms: int = 10_000  # 0: no bound
    retry_budget_percent: int = 20
    read_timeout_ms: int = 300_000  # 0: none, as of the next two
    send_timeout_ms: int = 60_000
    request_timeout_ms: int = 0
    body_size: int = 0  # bytes; 0: unlimited
    session_key_file: str = ""
    health_max_failures: int = 5  # 0: no endpoint is ejected
    health_ejection_ms: int = 10_000
    health_panic_percent: int = 50
    zone: str = ""
    node_name: str = ""
    state_dir: str = ""
    state_certificates: bool = False
    venv: str = ""
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT
    events: bool = True
    access_log_fields: bool = False

    @property
    def own_namespaces(self) -> tuple[str, ...]:
        """The proxy's namespace, and that of --configmap if it is another one: where settings of the proxy are looked for."""
        return tuple(dict.fromkeys((self.pod_namespace or "default", *(self.configmap or ())[:1])))

    @property
    def allow_loopback_endpoints(self) -> bool:
        """Endpoints on loopback are an attack when the API names them, and a laptop's normal case when a directory does."""
        return bool(self.manifests)
