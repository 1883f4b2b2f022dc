"""Settings: every option of the plugins, in one table, parsed once.

An option exists as `--name=value` and as the environment variable `ATSK8S_NAME`; some also under the name that an ancestor
gave them.  The flag wins over `ATSK8S_NAME`, which wins over the ancestor's variable, which wins over the default.  The table
`OPTIONS` is the only place that knows an option's name, unit and help, and `Settings` the only one that knows its default;
docs/options.md is generated from both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from atsk8s import option_values as texts
from atsk8s.errors import SettingsError
from atsk8s.label_selector import LabelSelector, parse_label_selector
from atsk8s.settings import CONTROLLER_NAME, EndpointSlices, LoadBalance, LogFormat, LogLevel, Settings, Tenancy, Token
from atsk8s.values import (
    TIMEOUT_MS_MAX,
    TRIES_MAX,
    Network,
    number_parser,
    parse_boolean,
    parse_name,
    parse_size,
    parse_words,
)

OPTION_BYTES_MAX: Final = 4096  # one option's value

Value: TypeAlias = (
    str
    | bool
    | int
    | Token
    | Tenancy
    | LogLevel
    | LogFormat
    | LoadBalance
    | EndpointSlices
    | LabelSelector
    | tuple[str, ...]
    | tuple[str, str]
    | tuple[str, int]
    | tuple[str, str, int | str]
    | tuple[Network, ...]
    | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of the table.  `parse` raises ValueError with the value's fault."""

    name: str
    parse: Callable[[str], Value]
    shape: str
    help: str
    ancestors: tuple[str, ...] = ()  # environment variables of the ancestors that mean the same
    attribute: str = ""  # of `Settings`; "": as the name
    flag: bool = True  # False: environment only, because the value is a secret and command lines and files are read by many

    @property
    def variable(self) -> str:
        return "ATSK8S_" + self.name.upper().replace("-", "_")

    @property
    def field(self) -> str:
        """The attribute of `Settings` that has its value."""
        return self.attribute or self.name.replace("-", "_")


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="kubeconfig",
        parse=texts.absolute_path,
        shape="FILE",
        help="How to reach the API server. Without it, and without --manifests or --server: the pod's service account.",
    ),
    Option(
        name="manifests",
        parse=texts.absolute_path,
        shape="DIR",
        help="No cluster: the YAML files in this directory, watched for changes, are the source of truth.",
    ),
    Option(
        name="server",
        parse=texts.api_server,
        shape="URL",
        help="The API server's address, instead of a kubeconfig.",
        ancestors=("TS_SERVER",),
    ),
    Option(
        name="ca-file",
        parse=texts.absolute_path,
        shape="FILE",
        help="With --server: certificate authorities to trust, PEM. Default: the service account's.",
        ancestors=("TS_CAFILE",),
    ),
    Option(
        name="token",
        parse=Token,
        shape="TOKEN",
        help="With --server: bearer token. Default: the service account's, read again as it rotates.",
        ancestors=("TS_TOKEN",),
        flag=False,
    ),
    Option(
        name="ingress-class",
        attribute="ingress_classes",
        parse=parse_words,
        shape="NAME[,NAME...]",
        help=f"Ingresses of these classes are ours, and those whose IngressClass has controller {CONTROLLER_NAME}.",
        ancestors=("INGRESS_CLASS", "TS_INGRESS_CLASSES"),
    ),
    Option(
        name="watch-ingress-without-class",
        parse=parse_boolean,
        shape="true|false",
        help="Ingresses without a class are ours, too. Default: false in a cluster, true with --manifests.",
    ),
    Option(
        name="watch-namespaces",
        parse=texts.namespaces,
        shape="NS[,NS...]",
        help="Only objects in these namespaces. Default: all.",
        ancestors=("INGRESS_NS",),
    ),
    Option(
        name="ignore-namespaces",
        parse=texts.namespaces,
        shape="NS[,NS...]",
        help="No object in these namespaces.",
        ancestors=("INGRESS_IGNORE_NS",),
    ),
    Option(
        name="namespace-selector",
        parse=parse_label_selector,
        shape="LABELS",
        help="Only Ingresses in namespaces whose labels match, as kubectl -l has it: `env=prod,team!=x,!legacy`.",
    ),
    Option(
        name="default-certificate",
        parse=texts.object_name,
        shape="NS/NAME",
        help="The kubernetes.io/tls Secret for TLS clients whose server name no certificate covers.",
    ),
    Option(
        name="default-backend",
        parse=texts.service_port,
        shape="NS/NAME:PORT",
        help="The Service for requests that nothing else matches. Default: 404.",
    ),
    Option(
        name="configmap",
        parse=texts.object_name,
        shape="NS/NAME",
        help='A ConfigMap with settings of the proxy, besides those of its namespace with the annotation ats-configmap: "true".',
        ancestors=("TS_CONFIGMAP",),
    ),
    Option(
        name="pod-namespace",
        parse=parse_name,
        shape="NS",
        help="The proxy's own namespace. Default: the service account's; without one, default.",
        ancestors=("POD_NAMESPACE",),
    ),
    Option(
        name="tenancy",
        parse=texts.one_of(Tenancy),
        shape="shared|strict",
        help="Who owns a host: shared lets namespaces share one, path by path; strict gives it to one namespace alone.",
    ),
    Option(
        name="domain-access-list",
        parse=texts.entries,
        shape="DOMAIN:NS[,NS...][;...]",
        help="Which namespaces may use which hosts; what no entry grants is denied. Adds to the ConfigMap's key of this name.",
    ),
    Option(
        name="max-hosts-per-namespace",
        parse=texts.limit,
        shape="N",
        help="Hosts in rules and tls; beyond, a namespace's youngest Ingresses lose. 0: no limit.",
    ),
    Option(name="max-routes-per-namespace", parse=texts.limit, shape="N", help="Paths and default backends, likewise."),
    Option(
        name="max-certificates-per-namespace",
        parse=texts.limit,
        shape="N",
        help="Secrets that its Ingresses name in tls, likewise.",
    ),
    Option(
        name="max-snippet-bytes",
        parse=parse_size,
        shape="BYTES",
        help="The longest snippet of an Ingress; k, m and g are powers of 1024.",
    ),
    Option(
        name="snippets",
        parse=parse_boolean,
        shape="off|on",
        help="Run the Lua of Ingresses' `server-snippet`; the rule needs tslua.so, too: [snippets.md](snippets.md).",
        ancestors=("SNIPPET",),
    ),
    Option(
        name="snippet-namespaces",
        parse=texts.namespaces,
        shape="NS[,NS...]",
        help="Whose Ingresses may have snippets. Default: everybody's; with --tenancy=strict nobody's.",
    ),
    Option(
        name="endpoint-slices",
        parse=texts.one_of(EndpointSlices),
        shape="any|managed",
        help="managed: only EndpointSlices that Kubernetes' own controller writes for Services with a selector.",
    ),
    Option(
        name="cache",
        parse=parse_boolean,
        shape="off|on",
        help="Let Traffic Server cache answers that say for how long they are fresh.",
    ),
    Option(
        name="allow-external-names",
        parse=parse_boolean,
        shape="true|false",
        help="Route to Services of type ExternalName. Off, because such a Service can name any host that the proxy can reach.",
    ),
    Option(
        name="reject-encoded-slash",
        parse=parse_boolean,
        shape="true|false",
        help="Answer 400 to a path with %2F. Off: it stays an opaque part of its path segment.",
    ),
    Option(
        name="health-path",
        parse=texts.health_path,
        shape="PATH",
        help="The path, on every host, that answers 200 when ready and 503 when not.",
    ),
    Option(
        name="trusted-proxies",
        parse=texts.networks,
        shape="CIDR[,CIDR...]",
        help="Clients whose X-Forwarded-* headers are believed and appended to. Everybody else's are replaced.",
    ),
    Option(
        name="admin",
        parse=texts.listen_address,
        shape="ADDRESS:PORT|off",
        help="Where health with reasons, metrics, explain and dump are served. Never on the traffic ports.",
    ),
    Option(
        name="start-timeout-ms",
        parse=texts.milliseconds(),
        shape="MS",
        help="How long Traffic Server's start waits for the first table before it opens its ports all the same.",
    ),
    Option(
        name="connect-timeout-ms",
        parse=texts.milliseconds(),
        shape="MS",
        help="How long one attempt to connect to an endpoint may take before the next endpoint is tried.",
    ),
    Option(
        name="load-balance",
        parse=texts.one_of(LoadBalance),
        shape="round-robin|least-request|random|hash",
        help="How one of a Service's endpoints is chosen, for Ingresses that do not say; hash: by the client's address.",
    ),
    Option(
        name="retry-tries",
        parse=number_parser(1, TRIES_MAX),
        shape="N",
        help=f"Attempts of one request, the first included, 1 to {TRIES_MAX}, where the Ingress does not say.",
    ),
    Option(
        name="retry-timeout-ms",
        parse=texts.milliseconds(0, TIMEOUT_MS_MAX),
        shape="MS",
        help="No new attempt at a request after so long. 0: no bound.",
    ),
    Option(
        name="retry-budget-percent",
        parse=number_parser(0, 100),
        shape="N",
        help="Of all requests, how many may be tried again, so that retries do not multiply an outage. A few a second always may.",
    ),
    Option(
        name="read-timeout-ms",
        parse=texts.milliseconds(0, TIMEOUT_MS_MAX),
        shape="MS",
        help="How long to wait for an answer's header, and between two reads of its body. 0: for ever.",
    ),
    Option(
        name="send-timeout-ms",
        parse=texts.milliseconds(0, TIMEOUT_MS_MAX),
        shape="MS",
        help="How long between two writes to an endpoint, and between two reads of a client's body. 0: for ever.",
    ),
    Option(
        name="request-timeout-ms",
        parse=texts.milliseconds(0, TIMEOUT_MS_MAX),
        shape="MS",
        help="How long a whole request may take, its answer included. 0: for ever.",
    ),
    Option(
        name="body-size",
        parse=parse_size,
        shape="BYTES",
        help="The largest body of a request; k, m and g are powers of 1024. Above it 413. 0: unlimited.",
    ),
    Option(
        name="session-key-file",
        parse=texts.absolute_path,
        shape="FILE",
        help="Of 16 bytes or more, one for all replicas: makes affinity cookies. Default: kept in --state-dir, else made at start.",
    ),
    Option(
        name="health-max-failures",
        parse=number_parser(0, 1000),
        shape="N",
        help="Failures in a row that leave an endpoint out for a while. 0: none do.",
    ),
    Option(
        name="health-ejection-ms",
        parse=texts.milliseconds(),
        shape="MS",
        help="How long an endpoint is left out the first time; the next times longer.",
    ),
    Option(
        name="health-panic-percent",
        parse=number_parser(0, 100),
        shape="N",
        help="If more than so many of a Service's endpoints would be left out, none is.",
    ),
    Option(
        name="zone",
        parse=parse_name,
        shape="NAME",
        help="The zone that this proxy runs in: endpoints that hints (forZones) mean for it come first. Default: no hints.",
    ),
    Option(
        name="node-name",
        parse=parse_name,
        shape="NAME",
        help="The node that this proxy runs on, likewise (forNodes).",
    ),
    Option(
        name="state-dir",
        parse=texts.absolute_path,
        shape="DIR",
        help="Keep the last good table in this directory, and serve from it at start until live data is there. Default: do not.",
    ),
    Option(
        name="state-certificates",
        parse=parse_boolean,
        shape="true|false",
        help="With --state-dir: certificates and their private keys, too. Off: HTTPS hosts wait for live data.",
    ),
    Option(
        name="venv",
        parse=texts.absolute_path,
        shape="DIR",
        help="The Python environment to run in. Default: the one installed beside the plugins.",
    ),
    Option(
        name="log-level",
        parse=texts.one_of(LogLevel),
        shape="debug|info|warning|error",
        help="The least important line that is logged.",
    ),
    Option(
        name="access-log-fields",
        parse=parse_boolean,
        shape="off|on",
        help="Give each request an X-Request-Id, and the access log its Ingress and Service. Costs some 3 us of CPU a request.",
    ),
    Option(name="log-format", parse=texts.one_of(LogFormat), shape="text|json", help="How lines are logged."),
    Option(name="events", parse=parse_boolean, shape="on|off", help="Write what is wrong as Kubernetes Events."),
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
            is_ours = variable == option.variable
            if environ.get(variable) or (is_ours and variable in environ):  # an ancestor's that is empty says nothing
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
