"""One object of a manifest: what an API server would have checked and added before it stored the object."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

import msgspec

from atsk8s.api.core import TLS_SECRET_TYPE
from atsk8s.api.decode import convert
from atsk8s.api.meta import MAX_NAME_CHARS, KubeObject, ObjectKey, trim
from atsk8s.errors import Reason, RejectError
from atsk8s.source.documents import Plain
from atsk8s.source.kinds import SECRET, AnyKind

DEFAULT_NAMESPACE = "default"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")  # RFC 1123 subdomain
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")  # RFC 1123 label


def to_object(kind: AnyKind, item: dict[str, Plain]) -> tuple[KubeObject, ObjectKey]:
    """The object that a document describes, with what an API server would have added.

    Raises:
        RejectError: it is invalid.
    """
    meta = item.get("metadata")
    if not isinstance(meta, dict):
        raise RejectError(Reason.MALFORMED, f"metadata is a {yaml_type(meta)}, expected a map with a name")
    meta = {name: value for name, value in meta.items() if value is not None}
    if kind.namespaced:
        meta.setdefault("namespace", DEFAULT_NAMESPACE)
    else:
        meta.pop("namespace", None)
    item = {**item, "metadata": meta}
    if kind is SECRET:
        item = _secret(item)
    try:
        encoded = msgspec.json.encode({name: value for name, value in item.items() if name != "status"}, order="sorted")
    except (RecursionError, UnicodeEncodeError, OverflowError):  # lone surrogates from JSON, integers beyond 64 bits
        raise RejectError(Reason.MALFORMED, "has text or numbers that no JSON can carry") from None
    meta["resourceVersion"] = hashlib.blake2b(encoded, digest_size=8).hexdigest()
    obj = convert(item, kind.item)
    key: ObjectKey = obj.key
    if not _NAME.match(key.name):
        raise RejectError(Reason.MALFORMED, "metadata.name is no name: lower case letters, digits, '-' and '.' (RFC 1123)")
    if kind.namespaced and not _LABEL.match(key.namespace):
        raise RejectError(Reason.MALFORMED, "metadata.namespace is no name: lower case letters, digits and '-' (RFC 1123)")
    return trim(obj, kind.annotation_prefixes, kind.label_names), key


def _secret(item: dict[str, Plain]) -> dict[str, Plain]:
    """`stringData` over `data`, base64 without the line breaks that people put in; only the type that the API would send us."""
    if item.get("type") != TLS_SECRET_TYPE:
        raise RejectError(Reason.UNSUPPORTED, f"a Secret of another type than {TLS_SECRET_TYPE} is not used: set its type")
    data: dict[str, Plain] = {}
    for section in ("data", "stringData"):
        entries = item.get(section)
        if entries is None:
            continue
        if not isinstance(entries, dict):
            raise RejectError(Reason.MALFORMED, f"{section} is a {yaml_type(entries)}, expected a map")
        for name, value in entries.items():
            if not isinstance(value, str | None):
                raise RejectError(Reason.MALFORMED, f"{section} {name[:80]!r} is a {yaml_type(value)}, expected a string: quote it")
            text = value or ""
            if section == "data":
                data[name] = _checked_base64("".join(text.split()), name)
            else:
                data[name] = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
    return {**{name: value for name, value in item.items() if name != "stringData"}, "data": data}


def _checked_base64(text: str, name: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RejectError(Reason.MALFORMED, f"data {name[:80]!r} is no base64: encode it, or use stringData") from None
    return text


def key_of(kind: AnyKind, item: Plain) -> ObjectKey | None:
    """Key of an object that was refused, if it has one."""
    meta = item.get("metadata") if isinstance(item, dict) else None
    name = meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(name, str) or not name or len(name) > MAX_NAME_CHARS:
        return None
    namespace = meta.get("namespace") or DEFAULT_NAMESPACE
    if not isinstance(namespace, str) or len(namespace) > MAX_NAME_CHARS:
        return None
    return ObjectKey(namespace if kind.namespaced else "", name)


def yaml_type(value: object) -> str:
    """What a value is called in YAML, for messages."""
    names = {dict: "map", list: "list", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
