"""Annotations: every one that means something, in one table.

An annotation has our name, and may have names of the first ancestor and of ingress-nginx, each with its own spelling of values.
The first of an object's names for one thing decides, in that order.  docs/annotations.md is generated from the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

from atsk8s.model import annotation_values as texts
from atsk8s.model.annotation_values import Parser
from atsk8s.model.policies import EXEMPT_MAX, LOAD_PERCENT_MAX, LOAD_PERCENT_MIN, SNIPPET_MAX
from atsk8s.values import CONNECT_TIMEOUT_MS_MAX, TIMEOUT_MS_MAX, TRIES_MAX, duration_parser, number_parser, parse_size

OURS: Final = "ats.ingress.kubernetes.io/"
ANCESTOR: Final = "ingress.kubernetes.io/"
NGINX: Final = "nginx.ingress.kubernetes.io/"

_DEFAULT: Final = "the default counts"
VALUE_CHARS_MAX: Final = 16 * 1024  # of one annotation; what any but a snippet can need


@unique
class Scope(StrEnum):
    """The kind of object that an annotation is read from."""

    INGRESS = "Ingress"
    SERVICE = "Service"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Alias:
    """Another name of an annotation; `parse` None: with the same values."""

    name: str
    parse: Parser | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotation:
    """One row of the table.  `parse` raises ValueError with the value's fault, worded to follow the value."""

    name: str  # ours, without its prefix
    parse: Parser
    shape: str
    default: str
    help: str
    scope: Scope = Scope.INGRESS
    aliases: tuple[Alias, ...] = ()
    # What is in force without it, for the message about a bad value: safety must not be lost without a word.
    otherwise: str = _DEFAULT
    chars_max: int = VALUE_CHARS_MAX

    @property
    def field(self) -> str:
        """The attribute of `IngressAnnotations` or `ServiceAnnotations`."""
        return self.name.replace("-", "_")


_NO_LIMIT: Final = "this limit is NOT in force"


def _nginx(name: str, parse: Parser | None = None) -> tuple[Alias, ...]:
    return (Alias(name=NGINX + name, parse=parse),)


def _row(name: str, parse: Parser, shape: str, default: str, text: str, *aliases: Alias, otherwise: str = _DEFAULT) -> Annotation:
    return Annotation(
        name=name,
        parse=parse,
        shape=shape,
        default=default,
        help=text,
        aliases=aliases,
        otherwise=otherwise,
    )


def _service_row(name: str, parse: Parser, shape: str, default: str, text: str) -> Annotation:
    return Annotation(name=name, parse=parse, shape=shape, default=default, help=text, scope=Scope.SERVICE)


ANNOTATIONS: Final[tuple[Annotation, ...]] = (
    _row(
        "load-balance",
        texts.algorithm,
        "round-robin, least-request, random or hash",
        "`--load-balance`",
        "How one of the Service's endpoints is chosen. `least-request` takes the less busy of two. `hash` without `hash-by` is by "
        "address. nginx: `round_robin`, and `ewma` for `least-request`.",
        *_nginx("load-balance", texts.nginx_algorithm),
    ),
    _row(
        "hash-by",
        texts.hash_by,
        "address, uri, header:NAME or cookie:NAME",
        "none",
        "Requests with the same client address, path and query, header or cookie go to the same endpoint; implies `load-balance: "
        "hash`. nginx: `$remote_addr`, `$binary_remote_addr`, `$request_uri`, `$uri`, `$http_NAME` or `$cookie_NAME`, one alone.",
        *_nginx("upstream-hash-by", texts.nginx_hash_by),
    ),
    _row(
        "hash-balance-factor",
        texts.load_percent,
        f"0, or percent from {LOAD_PERCENT_MIN} to {LOAD_PERCENT_MAX}",
        "125",
        "With `hash`: an endpoint that is loaded above so much of the mean passes requests on to the next one. 0: never.",
    ),
    _row(
        "affinity",
        texts.affinity,
        "cookie",
        "none",
        "A client stays with the endpoint that answered its first request, by a cookie that names no address and cannot be forged.",
        *_nginx("affinity"),
    ),
    _row(
        "session-cookie-name",
        texts.cookie_name,
        "token (RFC 6265)",
        "INGRESSCOOKIE",
        "The cookie's name.",
        *_nginx("session-cookie-name"),
    ),
    _row(
        "session-cookie-path",
        texts.cookie_path,
        "path",
        "/",
        "The cookie's Path.",
        *_nginx("session-cookie-path"),
    ),
    _row(
        "session-cookie-domain",
        texts.cookie_domain,
        "DNS name",
        "none",
        "Its Domain: the host, or a parent of it unless [namespaces are kept apart](tenancy.md). None: the host alone.",
        *_nginx("session-cookie-domain"),
    ),
    _row(
        "session-cookie-max-age",
        number_parser(0, 2**31 - 1, "a whole number of seconds"),
        "seconds",
        "0",
        "How long the client keeps the cookie. 0: until it ends its session. nginx's `session-cookie-expires` is the same.",
        Alias(name=NGINX + "session-cookie-max-age"),
        Alias(name=NGINX + "session-cookie-expires"),
    ),
    _row(
        "session-cookie-secure",
        texts.cookie_secure,
        "true or false",
        "when the client came by TLS",
        "Whether the client sends the cookie over TLS alone.",
        *_nginx("session-cookie-secure"),
    ),
    _row(
        "session-cookie-samesite",
        texts.same_site,
        "None, Lax or Strict",
        "none",
        "The cookie's SameSite. Browsers take `None` only from a cookie that is Secure.",
        *_nginx("session-cookie-samesite"),
    ),
    _row(
        "service-weights",
        texts.weights,
        "NAME=WEIGHT NAME=WEIGHT ...",
        "none",
        f"A path whose Service is one of these is split over all of them, at the same port, in proportion to their weights (0 to "
        f"{texts.WEIGHT_MAX}; 0 gets nothing).",
        otherwise="each path goes to its own Service alone",
    ),
    _row(
        "retry-on",
        texts.retry_on,
        "words: connect timeout reset STATUS non-idempotent off",
        "connect timeout reset",
        "What another endpoint is tried after: no connection, no answer in time, a connection closed before an answer, an answer "
        "with this status (500 to 599, 429, 404, 403; at most 8). Without `non-idempotent`, a POST, LOCK or PATCH that an endpoint "
        "may have seen is not sent again. nginx: `error` `timeout` `invalid_header` `http_STATUS` `non_idempotent` `off`.",
        *_nginx("proxy-next-upstream", texts.nginx_retry_on),
    ),
    _row(
        "retry-tries",
        texts.tries,
        f"1 to {TRIES_MAX}",
        "`--retry-tries`",
        f"Attempts of one request, the first included. nginx's 0 (no limit) is {TRIES_MAX}.",
        *_nginx("proxy-next-upstream-tries", texts.nginx_tries),
    ),
    _row(
        "retry-timeout",
        texts.duration,
        "duration",
        "`--retry-timeout-ms`",
        "No new attempt after so long. 0: no bound.",
        *_nginx("proxy-next-upstream-timeout"),
    ),
    _row(
        "connect-timeout",
        duration_parser(1, CONNECT_TIMEOUT_MS_MAX),
        "duration",
        "`--connect-timeout-ms`",
        "How long one attempt to connect may take.",
        *_nginx("proxy-connect-timeout"),
    ),
    _row(
        "read-timeout",
        texts.duration,
        "duration",
        "`--read-timeout-ms`",
        "How long to wait for an answer's header, and between two reads of its body; of a WebSocket, too. 0: for ever.",
        Alias(name=ANCESTOR + "read-response-timeout"),
        Alias(name=NGINX + "proxy-read-timeout"),
    ),
    _row(
        "send-timeout",
        texts.duration,
        "duration",
        "`--send-timeout-ms`",
        "How long between two writes to the endpoint, and between two reads of the client's body. 0: for ever.",
        *_nginx("proxy-send-timeout"),
    ),
    _row(
        "request-timeout",
        texts.duration,
        "duration",
        "`--request-timeout-ms`",
        "How long the whole request may take, its answer included. 0: for ever.",
    ),
    _row(
        "limit-rps",
        texts.rate,
        "requests in a second",
        "none",
        "What one client (an IPv6 client by its /64) may ask of the Ingress; above it 429. 0: no limit. With both `limit-rps` and "
        "`limit-rpm` the lower rate counts.",
        *_nginx("limit-rps"),
        otherwise=_NO_LIMIT,
    ),
    _row(
        "limit-rpm",
        texts.rate,
        "requests in a minute",
        "none",
        "As `limit-rps`.",
        *_nginx("limit-rpm"),
        otherwise=_NO_LIMIT,
    ),
    _row(
        "limit-burst-multiplier",
        number_parser(1, 1000),
        "1 to 1000",
        "5",
        "How many times its number a rate's requests may come at once.",
        *_nginx("limit-burst-multiplier"),
    ),
    _row(
        "limit-connections",
        texts.rate,
        "requests at a time",
        "none",
        "What one client may have going on at the Ingress; above it 429. 0: no limit.",
        *_nginx("limit-connections"),
        otherwise=_NO_LIMIT,
    ),
    _row(
        "limit-total-rps",
        texts.rate,
        "requests in a second",
        "none",
        "What all clients together may ask of the Ingress. 0: no limit.",
        otherwise=_NO_LIMIT,
    ),
    _row(
        "limit-total-concurrency",
        texts.rate,
        "requests at a time",
        "none",
        "What all clients together may have going on at the Ingress. 0: no limit.",
        otherwise=_NO_LIMIT,
    ),
    _row(
        "limit-exempt",
        texts.exempt,
        "CIDR,CIDR...",
        "none",
        f"Clients that the limits on one client are not for, at most {EXEMPT_MAX} ranges.",
        *_nginx("limit-whitelist", texts.nginx_exempt),
        otherwise="nobody is exempt",
    ),
    _row(
        "body-size",
        parse_size,
        "bytes, or with k, m or g",
        "`--body-size`",
        "The largest body of a request; above it 413. 0: unlimited.",
        *_nginx("proxy-body-size"),
        otherwise="this limit is NOT in force, the option --body-size counts",
    ),
    Annotation(
        name="server-snippet",
        parse=texts.snippet,
        shape="Lua",
        default="none",
        help="Run for each request of the Ingress, if an administrator has said `--snippets`: [snippets.md](snippets.md).",
        otherwise="no snippet is run",
        chars_max=SNIPPET_MAX,
    ),
    _service_row(
        "health-check-path",
        texts.probe_path,
        "URL path",
        "none",
        "Ask each endpoint for this path from time to time, and leave out those that do not answer 2xx or 3xx.",
    ),
    _service_row(
        "health-check-interval",
        duration_parser(100, TIMEOUT_MS_MAX),
        "duration",
        "10s",
        "From one check of an endpoint to the next.",
    ),
    _service_row(
        "health-check-timeout",
        duration_parser(10, CONNECT_TIMEOUT_MS_MAX),
        "duration",
        "2s",
        "How long a check may take.",
    ),
    _service_row(
        "health-check-port",
        number_parser(1, 65535),
        "port",
        "the endpoint's own",
        "The port that is asked.",
    ),
    _service_row(
        "health-max-failures",
        number_parser(0, 1000),
        "0 to 1000",
        "`--health-max-failures`",
        "Failures in a row that leave an endpoint out for a while. 0: none do.",
    ),
)


def annotations_table(scope: Scope) -> str:
    """A table of docs/annotations.md, as Markdown."""
    lines = ["| annotation | also accepted | value | default | what it does |", "|---|---|---|---|---|"]
    for row in ANNOTATIONS:
        if row.scope is not scope:
            continue
        aliases = ", ".join(f"`{alias.name}`" for alias in row.aliases) or "-"
        lines.append(f"| `{OURS}{row.name}` | {aliases} | {row.shape} | {row.default} | {row.help} |")
    return "\n".join(lines) + "\n"
