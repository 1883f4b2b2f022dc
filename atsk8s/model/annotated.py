"""What an object's annotations say, and the policies that follow from it.

Per object: computed once, and shared by all its rules.  Nothing here raises, whatever the annotations are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from atsk8s.errors import Reason, RejectError
from atsk8s.model.annotation_values import HashBy, Parser, RetryCauses, Value, Weights
from atsk8s.model.annotations import ANCESTOR, ANNOTATIONS, NGINX, OURS, Annotation, Scope
from atsk8s.model.ir import HealthCheck
from atsk8s.model.names import shown
from atsk8s.model.policies import (
    NOT_GIVEN,
    Affinity,
    Algorithm,
    Balance,
    BodyLimit,
    CookieSecure,
    HashSource,
    Limits,
    Policy,
    Retry,
    Snippet,
    Timeouts,
    in_order,
)
from atsk8s.values import Network

COOKIE_NAME: Final = "INGRESSCOOKIE"  # ingress-nginx's
LOAD_PERCENT: Final = 125  # of the mean; what HAProxy and Envoy suggest
BURST_MULTIPLIER: Final = 5  # ingress-nginx's
UNKNOWN_NAMED_MAX: Final = 8  # unknown annotations of one object that have a condition of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressAnnotations:
    """What an Ingress's annotations say; None: nothing."""

    load_balance: Algorithm | None = None
    hash_by: HashBy | None = None
    hash_balance_factor: int | None = None
    affinity: str | None = None
    session_cookie_name: str | None = None
    session_cookie_path: str | None = None
    session_cookie_domain: str | None = None
    session_cookie_max_age: int | None = None
    session_cookie_secure: CookieSecure | None = None
    session_cookie_samesite: str | None = None
    service_weights: Weights | None = None
    retry_on: RetryCauses | None = None
    retry_tries: int | None = None
    retry_timeout: int | None = None
    connect_timeout: int | None = None
    read_timeout: int | None = None
    send_timeout: int | None = None
    request_timeout: int | None = None
    limit_rps: int | None = None
    limit_rpm: int | None = None
    limit_burst_multiplier: int | None = None
    limit_connections: int | None = None
    limit_total_rps: int | None = None
    limit_total_concurrency: int | None = None
    limit_exempt: tuple[Network, ...] | None = None
    body_size: int | None = None
    server_snippet: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAnnotations:
    """What a Service's annotations say; None: nothing."""

    health_check_path: str | None = None
    health_check_interval: int | None = None
    health_check_timeout: int | None = None
    health_check_port: int | None = None
    health_max_failures: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with an object's annotations."""

    reason: Reason
    message: str


_BY_NAME: Final = {OURS + row.name: row for row in ANNOTATIONS}
_OF_SCOPE: Final = {
    scope: tuple(
        (row, ((OURS + row.name, row.parse), *((alias.name, alias.parse or row.parse) for alias in row.aliases)))
        for row in ANNOTATIONS
        if row.scope is scope
    )
    for scope in Scope
}
# Without one of these an object's annotations say nothing, which is what most objects' do.
_PREFIXES: Final = {Scope.INGRESS: (OURS, ANCESTOR, NGINX), Scope.SERVICE: (OURS,)}

NO_INGRESS_ANNOTATIONS: Final = IngressAnnotations()
NO_SERVICE_ANNOTATIONS: Final = ServiceAnnotations()


def parse_annotation(row: Annotation, parse: Parser, name: str, text: str) -> Value:
    """The value of one annotation.  Total: any text gives a value or RejectError.

    Raises:
        RejectError: the message names the annotation, its value, the fault, what could be, and what counts instead.
    """
    try:
        if len(text) > row.chars_max:
            raise ValueError(f"is longer than {row.chars_max} characters")
        return parse(text)
    except ValueError as error:
        message = f"annotation {name}: {shown(text)} {error}: correct it; until then {row.otherwise}"
        raise RejectError(Reason.INVALID_ANNOTATION, message) from None


def ingress_annotations(annotations: Mapping[str, str]) -> tuple[IngressAnnotations, list[Fault]]:
    """What an Ingress's annotations say, and what is wrong with them."""
    values, faults = _values(Scope.INGRESS, annotations)
    if not values:
        return NO_INGRESS_ANNOTATIONS, faults
    return IngressAnnotations(**values), faults  # type: ignore[arg-type]  # each value was made by its own row's parser


def service_annotations(annotations: Mapping[str, str]) -> tuple[ServiceAnnotations, list[Fault]]:
    """What a Service's annotations say, and what is wrong with them."""
    values, faults = _values(Scope.SERVICE, annotations)
    if not values:
        return NO_SERVICE_ANNOTATIONS, faults
    return ServiceAnnotations(**values), faults  # type: ignore[arg-type]  # each value was made by its own row's parser


def _values(scope: Scope, annotations: Mapping[str, str]) -> tuple[dict[str, Value], list[Fault]]:
    values: dict[str, Value] = {}
    faults: list[Fault] = []
    if not any(name.startswith(_PREFIXES[scope]) for name in annotations):
        return values, faults
    for row, names in _OF_SCOPE[scope]:
        for name, parse in names:
            text = annotations.get(name)
            if text is None:
                continue
            try:
                values[row.field] = parse_annotation(row, parse, name, text)
            except RejectError as rejection:
                faults.append(Fault(reason=rejection.reason, message=rejection.message))
            break  # the first name decides
    faults += _unknown(scope, annotations)
    return values, faults


def _unknown(scope: Scope, annotations: Mapping[str, str]) -> list[Fault]:
    faults: list[Fault] = []
    n_unknown = 0
    for name in sorted(name for name in annotations if name.startswith(OURS)):
        row = _BY_NAME.get(name)
        if row is not None and row.scope is scope:
            continue
        n_unknown += 1
        if n_unknown <= UNKNOWN_NAMED_MAX:
            why = "there is none of this name" if row is None else f"it is for objects of kind {row.scope}"
            message = f"annotation {shown(name, 120)} means nothing here, {why}: correct or remove it"
            faults.append(Fault(reason=Reason.UNKNOWN_ANNOTATION, message=message))
    if n_unknown > UNKNOWN_NAMED_MAX:
        message = f"{n_unknown} annotations that start with {OURS} mean nothing here: correct or remove them"
        faults.append(Fault(reason=Reason.UNKNOWN_ANNOTATION, message=message))
    return faults


# --- policies -----------------------------------------------------------------------------------------------------------------


def policies_of(said: IngressAnnotations) -> tuple[tuple[Policy, ...], list[Fault]]:
    """The policies of an Ingress's rules; () if nothing was said.  And what was said to no effect."""
    if said is NO_INGRESS_ANNOTATIONS:
        return (), []
    faults: list[Fault] = []
    made = (
        _balance(said, faults),
        _affinity(said, faults),
        _retry(said),
        _timeouts(said),
        _limits(said, faults),
        _body(said),
        _snippet(said),
    )
    return in_order([policy for policy in made if policy is not None]), faults


def _useless(name: str, needs: str) -> Fault:
    message = f"annotation {name} has no effect without {needs}: add that, or remove it"
    return Fault(reason=Reason.INVALID_ANNOTATION, message=message)


def _balance(said: IngressAnnotations, faults: list[Fault]) -> Balance | None:
    algorithm = said.load_balance
    if said.hash_by is not None:
        if algorithm not in (None, Algorithm.HASH):
            message = "annotation load-balance has no effect beside hash-by: remove one of them"
            faults.append(Fault(reason=Reason.INVALID_ANNOTATION, message=message))
        algorithm = Algorithm.HASH
    if said.hash_balance_factor is not None and algorithm is not Algorithm.HASH:
        faults.append(_useless("hash-balance-factor", "load-balance: hash"))
    if algorithm is None:
        return None
    if algorithm is not Algorithm.HASH:
        return Balance(algorithm=algorithm)
    source, name = said.hash_by or (HashSource.ADDRESS, "")
    percent = said.hash_balance_factor if said.hash_balance_factor is not None else LOAD_PERCENT
    return Balance(algorithm=algorithm, hash_source=source, name=name, load_percent=percent)


def _affinity(said: IngressAnnotations, faults: list[Fault]) -> Affinity | None:
    if said.affinity is None:
        given = (said.session_cookie_name, said.session_cookie_path, said.session_cookie_domain, said.session_cookie_max_age)
        if any(value is not None for value in (*given, said.session_cookie_secure, said.session_cookie_samesite)):
            faults.append(_useless("session-cookie-*", "affinity: cookie"))
        return None
    attributes = [f"; Path={said.session_cookie_path or '/'}"]
    if said.session_cookie_domain is not None:
        attributes.append(f"; Domain={said.session_cookie_domain}")
    if said.session_cookie_max_age:
        attributes.append(f"; Max-Age={said.session_cookie_max_age}")
    attributes.append("; HttpOnly")
    if said.session_cookie_samesite is not None:
        attributes.append(f"; SameSite={said.session_cookie_samesite}")
    secure = said.session_cookie_secure if said.session_cookie_secure is not None else CookieSecure.BY_SCHEME
    return Affinity(name=said.session_cookie_name or COOKIE_NAME, attributes="".join(attributes), secure=secure)


def _retry(said: IngressAnnotations) -> Retry | None:
    on, statuses = said.retry_on or (NOT_GIVEN, ())
    made = Retry(on=on, statuses=statuses, tries=said.retry_tries, time_ms=said.retry_timeout)
    return made if made != Retry() else None


def _timeouts(said: IngressAnnotations) -> Timeouts | None:
    made = Timeouts(
        connect_ms=said.connect_timeout, read_ms=said.read_timeout, send_ms=said.send_timeout, request_ms=said.request_timeout
    )
    return made if made != Timeouts() else None


def _limits(said: IngressAnnotations, faults: list[Fault]) -> Limits | None:
    multiplier = said.limit_burst_multiplier if said.limit_burst_multiplier is not None else BURST_MULTIPLIER
    # Each a rate [requests in 1000 s] and its burst [requests]; of two the lower rate counts.
    rates = [(said.limit_rps * 1000, said.limit_rps * multiplier)] if said.limit_rps else []
    if said.limit_rpm:
        rates.append((said.limit_rpm * 1000 // 60, said.limit_rpm * multiplier))
    rate, burst = min(rates, default=(0, 0))
    total = said.limit_total_rps or 0
    if said.limit_burst_multiplier is not None and not rate and not total:
        faults.append(_useless("limit-burst-multiplier", "limit-rps, limit-rpm or limit-total-rps"))
    concurrency = said.limit_connections or 0
    if not (rate or total or concurrency or said.limit_total_concurrency):
        return None
    return Limits(
        client_rate_milli=rate,
        client_burst=burst,
        client_concurrency=concurrency,
        total_rate_milli=total * 1000,
        total_burst=total * multiplier,
        total_concurrency=said.limit_total_concurrency or 0,
        exempt=said.limit_exempt if said.limit_exempt is not None and (rate or concurrency) else (),
    )


def _body(said: IngressAnnotations) -> BodyLimit | None:
    return BodyLimit(max_bytes=said.body_size) if said.body_size is not None else None


def _snippet(said: IngressAnnotations) -> Snippet | None:
    return Snippet(text=said.server_snippet) if said.server_snippet is not None else None


def health_check_of(said: ServiceAnnotations) -> tuple[HealthCheck | None, list[Fault]]:
    """The active checks of a Service's endpoints; None: none are asked for.  And what was said to no effect."""
    if said.health_check_path is not None:
        made = HealthCheck(path=said.health_check_path, port=said.health_check_port)
        if said.health_check_interval is not None:
            made = replace(made, interval_ms=said.health_check_interval)
        if said.health_check_timeout is not None:
            made = replace(made, timeout_ms=said.health_check_timeout)
        return made, []
    faults = [
        _useless(f"health-check-{what}", "health-check-path")
        for what, value in (
            ("interval", said.health_check_interval),
            ("timeout", said.health_check_timeout),
            ("port", said.health_check_port),
        )
        if value is not None
    ]
    return None, faults
