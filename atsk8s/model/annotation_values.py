"""The texts of annotations to values, one function for each spelling.

Total: each takes any text and returns a value in bounds or raises ValueError with the text's fault, worded to follow the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from atsk8s.model.names import is_subdomain, shown
from atsk8s.model.policies import (
    COOKIE_NAME_MAX,
    EXEMPT_MAX,
    HASH_NAME_MAX,
    LOAD_PERCENT_MAX,
    LOAD_PERCENT_MIN,
    STATUSES_MAX,
    Algorithm,
    CookieSecure,
    HashSource,
    RetryOn,
)
from atsk8s.values import TIMEOUT_MS_MAX, TRIES_MAX, Network, duration_parser, number_parser, parse_boolean, parse_networks

WEIGHT_MAX: Final = 1_000_000
SPLIT_MAX: Final = 64  # Services that one Ingress splits a path over
RATE_MAX: Final = 1_000_000
PATH_ATTRIBUTE_MAX: Final = 512

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 section 5.6.2
_ATTRIBUTE: Final = re.compile(r"/[ -:<-~]*", re.ASCII)  # RFC 6265 section 4.1.1, path-value
_NGINX_VARIABLES: Final = {
    "$remote_addr": HashSource.ADDRESS,
    "$binary_remote_addr": HashSource.ADDRESS,
    "$request_uri": HashSource.URI,
    "$uri": HashSource.URI,
}

HashBy: TypeAlias = tuple[HashSource, str]
RetryCauses: TypeAlias = tuple[RetryOn, tuple[int, ...]]
Weights: TypeAlias = tuple[tuple[str, int], ...]
Value: TypeAlias = str | int | Algorithm | HashBy | CookieSecure | RetryCauses | Weights | tuple[Network, ...]
Parser: TypeAlias = Callable[[str], Value]


def algorithm(text: str) -> Algorithm:
    match text.strip().lower():
        case "round-robin":
            return Algorithm.ROUND_ROBIN
        case "least-request":
            return Algorithm.LEAST_REQUEST
        case "random":
            return Algorithm.RANDOM
        case "hash":
            return Algorithm.HASH
    raise ValueError("is none of round-robin, least-request, random, hash")


def nginx_algorithm(text: str) -> Algorithm:
    match text.strip().lower():
        case "round_robin":
            return Algorithm.ROUND_ROBIN
        case "ewma":
            return Algorithm.LEAST_REQUEST
    raise ValueError("is neither round_robin nor ewma")


def _token(text: str, n_max: int, what: str) -> str:
    if not _TOKEN.fullmatch(text) or len(text) > n_max:
        raise ValueError(f"is no name of a {what}: letters, digits and !#$%&'*+-.^_`|~, at most {n_max}")
    return text


def hash_by(text: str) -> HashBy:
    word = text.strip()
    kind, colon, name = word.partition(":")
    match kind.lower():
        case "address" if not colon:
            return HashSource.ADDRESS, ""
        case "uri" if not colon:
            return HashSource.URI, ""
        case "header" if colon:
            return HashSource.HEADER, _token(name, HASH_NAME_MAX, "header").lower()
        case "cookie" if colon:
            return HashSource.COOKIE, _token(name, HASH_NAME_MAX, "cookie")
    raise ValueError("is none of address, uri, header:NAME, cookie:NAME")


def nginx_hash_by(text: str) -> HashBy:
    word = text.strip()
    source = _NGINX_VARIABLES.get(word)
    if source is not None:
        return source, ""
    if word.startswith("$http_"):
        return HashSource.HEADER, _token(word[6:], HASH_NAME_MAX, "header").lower().replace("_", "-")
    if word.startswith("$cookie_"):
        return HashSource.COOKIE, _token(word[8:], HASH_NAME_MAX, "cookie")
    known = " ".join(_NGINX_VARIABLES)
    raise ValueError(f"is none of {known} $http_NAME $cookie_NAME: hash by one of them, nothing else is combined")


_load_percent_in_bounds: Final = number_parser(LOAD_PERCENT_MIN, LOAD_PERCENT_MAX, "0 or a whole number of percent")


def load_percent(text: str) -> int:
    return 0 if text.strip() == "0" else _load_percent_in_bounds(text)


def affinity(text: str) -> str:
    if text.strip().lower() != "cookie":
        raise ValueError("is not cookie, the only kind of affinity")
    return "cookie"


def cookie_name(text: str) -> str:
    return _token(text.strip(), COOKIE_NAME_MAX, "cookie")


def cookie_path(text: str) -> str:
    path = text.strip()
    if not _ATTRIBUTE.fullmatch(path) or len(path) > PATH_ATTRIBUTE_MAX:
        raise ValueError(f"is no path: '/', then printable ASCII without ';', at most {PATH_ATTRIBUTE_MAX} characters")
    return path


def cookie_domain(text: str) -> str:
    domain = text.strip().lower()
    if not is_subdomain(domain.removeprefix(".")):
        raise ValueError("is not a DNS name")
    return domain.removeprefix(".")  # RFC 6265 section 4.1.2.3: a leading dot is ignored


def cookie_secure(text: str) -> CookieSecure:
    if not text.strip():
        raise ValueError("is neither true nor false")
    return CookieSecure.ALWAYS if parse_boolean(text) else CookieSecure.NEVER


def same_site(text: str) -> str:
    found = {"none": "None", "lax": "Lax", "strict": "Strict"}.get(text.strip().lower())
    if found is None:
        raise ValueError("is none of None, Lax, Strict")
    return found


_weight: Final = number_parser(0, WEIGHT_MAX)


def weights(text: str) -> Weights:
    weights: dict[str, int] = {}
    for word in text.replace(",", " ").split():
        name, equals, digits = word.rpartition("=")
        if not equals or not is_subdomain(name):
            raise ValueError(f"has an entry {shown(word)} that is not SERVICE=WEIGHT")
        if name in weights:
            raise ValueError(f"names the Service {shown(name)} twice")
        try:
            weights[name] = _weight(digits)
        except ValueError as error:
            raise ValueError(f"has the weight {shown(digits)} for {shown(name)}, which {error}") from None
        if len(weights) > SPLIT_MAX:
            raise ValueError(f"names more than {SPLIT_MAX} Services")
    if not any(weights.values()):
        raise ValueError("has no Service with a weight above 0")
    return tuple(sorted(weights.items()))


def _status(digits: str) -> int:
    if re.fullmatch(r"5[0-9]{2}|429|404|403", digits, re.ASCII) is None:
        raise ValueError(f"has the status {shown(digits)}, which is none of 500..599, 429, 404, 403")
    return int(digits)


def _causes(words: Iterable[str], known: Mapping[str, RetryOn], status_prefix: str) -> RetryCauses:
    on, statuses, is_off, n_words = RetryOn.GIVEN, set[int](), False, 0
    for word in words:
        n_words += 1
        bits = known.get(word)
        if bits is not None:
            on |= bits
        elif word == "off":
            is_off = True
        elif word.startswith(status_prefix) and word.removeprefix(status_prefix).isdecimal():
            statuses.add(_status(word.removeprefix(status_prefix)))
        else:
            raise ValueError(f"has the word {shown(word)}; there are {' '.join(known)} {status_prefix}STATUS off")
    if not n_words:
        raise ValueError(f"is empty; there are {' '.join(known)} {status_prefix}STATUS off")
    if is_off and n_words > 1:
        raise ValueError("has off beside other words: keep off, or remove it")
    if len(statuses) > STATUSES_MAX:
        raise ValueError(f"has {len(statuses)} statuses; at most {STATUSES_MAX} are taken")
    return on | (RetryOn.STATUS if statuses else RetryOn(0)), tuple(sorted(statuses))


def retry_on(text: str) -> RetryCauses:
    known = {
        "connect": RetryOn.CONNECT,
        "timeout": RetryOn.TIMEOUT,
        "reset": RetryOn.RESET,
        "non-idempotent": RetryOn.NON_IDEMPOTENT,
    }
    return _causes(text.replace(",", " ").lower().split(), known, "")


def nginx_retry_on(text: str) -> RetryCauses:
    known = {
        "error": RetryOn.CONNECT | RetryOn.RESET,
        "timeout": RetryOn.TIMEOUT,
        "invalid_header": RetryOn.RESET,
        "non_idempotent": RetryOn.NON_IDEMPOTENT,
    }
    return _causes(text.lower().split(), known, "http_")


tries: Final = number_parser(1, TRIES_MAX)


def nginx_tries(text: str) -> int:
    return TRIES_MAX if text.strip() == "0" else tries(text)  # nginx: 0 is no limit


def exempt(text: str) -> tuple[Network, ...]:
    return parse_networks(text, EXEMPT_MAX)


def nginx_exempt(text: str) -> tuple[Network, ...]:
    return parse_networks(text, EXEMPT_MAX, strict=False)


def probe_path(text: str) -> str:
    path = text.strip()
    if not path.startswith("/") or len(path) > PATH_ATTRIBUTE_MAX or any(not "!" <= c <= "~" or c == "#" for c in path):
        raise ValueError(f"is no URL path such as /healthz, at most {PATH_ATTRIBUTE_MAX} characters")
    return path


def snippet(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError("has a NUL")
    return text


duration: Final = duration_parser(0, TIMEOUT_MS_MAX)
rate: Final = number_parser(0, RATE_MAX)
