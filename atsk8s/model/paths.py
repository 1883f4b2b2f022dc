"""The path of an Ingress rule, checked and normalised as a request's path is."""

from __future__ import annotations

import re
from typing import Final

from atsk8s.errors import Reason, RejectError
from atsk8s.model.ir import PathMatchKind
from atsk8s.model.names import shown
from atsk8s.model.normalise import RequestFault, normalise_path

RULE_PATH_BYTES_MAX: Final = 4096  # of a rule's path as UTF-8; half of what a request may have, and far above any in use

_KINDS: Final = {
    "Exact": PathMatchKind.EXACT,
    "Prefix": PathMatchKind.PREFIX,
    "ImplementationSpecific": PathMatchKind.PREFIX,  # "up to the IngressClass": ours treats it as Prefix
}
# Most paths are like this, and are in normal form already.
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*)+")
# A client sends these escaped, whatever the object has (RFC 3986 section 2.4; URL Standard, path percent-encode set).
_UNSENT: Final = re.compile(rb"[\x80-\xff ]")


def match_kind(path_type: str, field: str) -> PathMatchKind:
    """The kind that HTTPIngressPath.pathType asks for.

    Raises:
        RejectError: it is absent or unknown.
    """
    kind = _KINDS.get(path_type)
    if kind is None:
        raise RejectError(
            Reason.INVALID_PATH,
            f"{field}.pathType {shown(path_type)} is unknown: set it to Exact, Prefix or ImplementationSpecific",
        )
    return kind


def match_path(kind: PathMatchKind, path: str, field: str) -> str:
    """`path` in normal form: starts with "/", and a PREFIX other than "/" has no trailing slash.  "" is "/" for a PREFIX.

    Raises:
        RejectError: relative, too long, or never equal to the path of a request.
    """
    if len(path) <= RULE_PATH_BYTES_MAX and _PLAIN.fullmatch(path):
        return path
    if not path and kind is PathMatchKind.PREFIX:
        return "/"
    raw = path.encode("utf-8", "replace")
    if len(raw) > RULE_PATH_BYTES_MAX:
        raise RejectError(
            Reason.INVALID_PATH, f"{field}.path {shown(path)} has {len(raw)} bytes: at most {RULE_PATH_BYTES_MAX} are taken"
        )
    if not raw.startswith(b"/"):
        raise RejectError(Reason.INVALID_PATH, f"{field}.path {shown(path)} is relative: start it with '/'")
    if b"?" in raw or b"#" in raw:
        raise RejectError(
            Reason.INVALID_PATH, f"{field}.path {shown(path)} has a query or fragment, which no rule sees: leave it out"
        )
    normal = normalise_path(_UNSENT.sub(lambda byte: b"%%%02X" % byte[0][0], raw))
    match normal:
        case RequestFault.LONG_PATH:
            raise RejectError(Reason.INVALID_PATH, f"{field}.path {shown(path)} is too long when escaped: shorten it")
        case RequestFault():
            raise RejectError(
                Reason.INVALID_PATH,
                f"{field}.path {shown(path)} has a control character, a '%' without two hexadecimal digits, "
                "or more '..' than segments: correct it",
            )
    text = normal.decode("ascii")
    return text.rstrip("/") or "/" if kind is PathMatchKind.PREFIX else text
